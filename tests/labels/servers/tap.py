"""A TAP service: synchronous queries and asynchronous jobs in ADQL, uploads, TAP_SCHEMA, MAXREC with its OVERFLOW.

The ADQL is run by SQLite, which is given the geometrical functions; schemas are attached databases.
"""

from __future__ import annotations

import io
import sqlite3
import threading
import uuid
from dataclasses import dataclass, field

import numpy as np
from astropy.io.votable import from_table, parse_single_table
from astropy.table import MaskedColumn, Table
from servers.loopback import HttpRequest, Loopback, Reply

VOTABLE = "application/x-votable+xml"
JOB = """<?xml version="1.0" encoding="UTF-8"?>
<uws:job xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1">
<uws:jobId>{id}</uws:jobId><uws:phase>{phase}</uws:phase><uws:executionDuration>600</uws:executionDuration>
<uws:destruction>2100-01-01T00:00:00Z</uws:destruction><uws:parameters/>
<uws:results>{results}</uws:results>{error}</uws:job>"""


@dataclass
class Job:
    """An asynchronous job."""

    form: dict[str, str]
    files: dict[str, bytes]
    phase: str = "PENDING"
    reply: Reply = field(default_factory=Reply)


class Tap(Loopback):
    """A TAP service.

    Parameters
    ----------
    tables : by their names with schema, `NEDTAP.objdir`.
    limit : most rows of an answer, whatever MAXREC asks for.
    looks : how often a job is still queued or executing when it is looked at; `endless` jobs never end.
    """

    def __init__(self, tables: dict[str, Table], limit: int = 1_000_000, looks: int = 2, endless: bool = False) -> None:
        super().__init__(self._route)
        self.tables, self.limit, self.looks, self.endless = tables, limit, looks, endless
        self.jobs: dict[str, Job] = {}
        self.uploads = 0
        self._looked: dict[str, int] = {}
        self._guard = threading.Lock()

    def _route(self, request: HttpRequest) -> Reply:
        parts = request.path.strip("/").split("/")
        if parts == ["tap", "sync"]:
            return self._query(request.form, request.files)
        if parts == ["tap", "async"]:
            name = uuid.uuid4().hex[:8]
            self.jobs[name] = Job(request.form, request.files)
            return Reply(status=303, headers={"Location": f"{self.url}/tap/async/{name}"})
        if parts[:2] != ["tap", "async"] or parts[2] not in self.jobs:
            return Reply(b"there is no such job", status=404)
        name, what = parts[2], parts[3:]
        job = self.jobs[name]
        if request.method == "DELETE":
            del self.jobs[name]
            return Reply(status=303, headers={"Location": f"{self.url}/tap/async"})
        if what == ["phase"]:
            job.phase = "QUEUED"
            return Reply(status=303, headers={"Location": f"{self.url}/tap/async/{name}"})
        if what == ["results", "result"]:
            return job.reply
        return self._look(name, job)

    def _look(self, name: str, job: Job) -> Reply:
        with self._guard:
            if job.phase in ("QUEUED", "EXECUTING") and not self.endless:
                self._looked[name] = self._looked.get(name, 0) + 1
                if self._looked[name] > self.looks:
                    job.reply = self._query(job.form, job.files)
                    job.phase = "COMPLETED" if job.reply.status == 200 else "ERROR"
                else:
                    job.phase = "EXECUTING"
        results = error = ""
        if job.phase == "COMPLETED":
            href = f"{self.url}/tap/async/{name}/results/result"
            results = f'<uws:result id="result" xlink:href="{href}" xlink:type="simple"/>'
        if job.phase == "ERROR":
            said = parse_status(job.reply.body)
            error = (
                f'<uws:errorSummary type="fatal" hasDetail="false"><uws:message>{said}</uws:message></uws:errorSummary>'
            )
        return Reply(JOB.format(id=name, phase=job.phase, results=results, error=error).encode(), "text/xml")

    def _query(self, form: dict[str, str], files: dict[str, bytes]) -> Reply:
        database = self._database(form, files)
        wanted = min(int(form.get("MAXREC", self.limit)), self.limit)
        try:
            cursor = database.execute(form["QUERY"])
        except sqlite3.Error as error:
            return Reply(status_votable("ERROR", str(error)), VOTABLE, 400)
        rows = cursor.fetchmany(wanted + 1)
        names = [column[0] for column in cursor.description]
        return Reply(votable(names, rows[:wanted], len(rows) > wanted), VOTABLE)

    def _database(self, form: dict[str, str], files: dict[str, bytes]) -> sqlite3.Connection:
        database = sqlite3.connect(":memory:")
        database.create_function("POINT", 3, lambda frame, ra, dec: f"{ra!r} {dec!r}")
        database.create_function("CIRCLE", 4, lambda frame, ra, dec, radius: f"{ra!r} {dec!r} {radius!r}")
        database.create_function("CONTAINS", 2, contains)
        tables = dict(self.tables)
        for upload in filter(None, form.get("UPLOAD", "").split(";")):
            name, _, where = upload.partition(",")
            content = files[where.removeprefix("param:")]
            tables[f"TAP_UPLOAD.{name}"] = parse_single_table(io.BytesIO(content)).to_table(use_names_over_ids=True)
            self.uploads += 1
        listed = [(table, column) for table, content in tables.items() for column in content.colnames]
        tables["TAP_SCHEMA.columns"] = Table(rows=listed, names=["table_name", "column_name"])
        for schema in sorted({name.partition(".")[0] for name in tables}):
            database.execute(f"ATTACH ':memory:' AS {schema}")
        for name, content in tables.items():
            database.execute(f"CREATE TABLE {name} ({', '.join(content.colnames)})")
            columns = [_plain(content[column]) for column in content.colnames]
            database.executemany(
                f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", list(zip(*columns, strict=True))
            )
        return database


def contains(point: str, circle: str) -> int:
    """Whether a point lies in a circle, both written in degrees."""
    ra, dec = (np.radians(float(value)) for value in point.split())
    center_ra, center_dec, radius = (np.radians(float(value)) for value in circle.split())
    half = np.sin((dec - center_dec) / 2) ** 2 + np.cos(dec) * np.cos(center_dec) * np.sin((ra - center_ra) / 2) ** 2
    return int(2 * np.arcsin(min(1.0, np.sqrt(half))) <= radius)


def votable(names: list[str], rows: list[tuple], overflow: bool = False) -> bytes:
    """A VOTable of rows whose missing numbers are None."""
    columns = {}
    for number, name in enumerate(names):
        values = [row[number] for row in rows]
        if any(isinstance(value, str) for value in values):
            columns[name] = MaskedColumn(["" if value is None else value for value in values], dtype=str)
        else:
            gone = [value is None for value in values]
            columns[name] = MaskedColumn([np.nan if value is None else value for value in values], float, mask=gone)
    document = from_table(Table(columns))
    text = io.BytesIO()
    document.to_xml(text)
    status = b'<INFO name="QUERY_STATUS" value="OK"/><INFO name="server_software" value="Loopback TAP 1.0"/>'
    body = text.getvalue().replace(b'<RESOURCE type="results">', b'<RESOURCE type="results">' + status, 1)
    if overflow:
        body = body.replace(b"</RESOURCE>", b'<INFO name="QUERY_STATUS" value="OVERFLOW"/></RESOURCE>', 1)
    return body


def status_votable(status: str, message: str) -> bytes:
    """A VOTable without a table."""
    return (
        '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">'
        f'<INFO name="QUERY_STATUS" value="{status}">{message}</INFO></RESOURCE></VOTABLE>'
    ).encode()


def parse_status(body: bytes) -> str:
    """The message of such a VOTable."""
    return body.decode().rpartition("</INFO>")[0].rpartition(">")[2]


def _plain(column: object) -> list:
    """Values for SQLite: NaN and masked ones are null."""
    values = np.ma.asarray(column)
    plain = values.tolist()
    return [None if value is None or value != value else value for value in plain]
