"""SkyServer's SQL search and cross-identification: queries are run by SQLite on a table of spectra, answers are CSV."""

from __future__ import annotations

import json
import re
import sqlite3

import numpy as np
from astropy.table import Table
from servers.loopback import HttpRequest, Loopback, Reply

SEARCH, CROSSID = "/en/tools/search/x_results.aspx", "/en/tools/search/X_Results.aspx"
PHOTOMETRY = ("objID", "ra", "dec", "type")


class SkyServer(Loopback):
    """A SkyServer; spectra at the very same position are of one photometric object.

    Parameters
    ----------
    rows : most rows of an answer; more are left out in silence, as the real one does.
    names : other names of columns: `{"zWarning": "zwarn"}`.
    """

    def __init__(self, spectra: Table, rows: int = 500_000, names: dict[str, str] | None = None) -> None:
        super().__init__(self._search)
        self.rows = rows
        self._names = [*((names or {}).get(name, name) for name in spectra.colnames), "bestObjID"]
        columns = [column.astype(str) if name == "specObjID" else column for name, column in spectra.columns.items()]
        self._places, best = np.unique(np.stack([spectra["ra"], spectra["dec"]], axis=1), axis=0, return_inverse=True)
        self._rows = list(zip(*(column.tolist() for column in columns), best.ravel().tolist(), strict=True))

    def _search(self, request: HttpRequest) -> Reply:
        tool = request.method, request.form.get("searchtool")
        if tool == ("GET", "SQL") and request.path.endswith(SEARCH):
            documented = re.fullmatch(r"select \* from dbo\.fDocColumns\('(\w+)'\)", request.form["cmd"])
            return self._columns(documented[1]) if documented else self._run(self._tables(), request.form["cmd"])
        if tool == ("POST", "CrossID") and request.path.endswith(CROSSID):
            return self._identify(request)
        return Reply(b"no such page", status=404)

    def _columns(self, table: str) -> Reply:
        """What the client asks for before a cross-identification."""
        names = {"PhotoObjAll": PHOTOMETRY, "SpecObjAll": self._names}[table]
        told = [{"TableName": "Table1", "Rows": [{"enum": "", "name": name, "type": ""} for name in names]}]
        return Reply(json.dumps(told).encode(), "application/json; charset=utf-8")

    def _identify(self, request: HttpRequest) -> Reply:
        """The query over `#upload`, the list, and `#x`, the nearest primary object of each of its positions."""
        if (request.form["photoScope"], request.form["firstcol"], request.form["format"]) != ("nearPrim", "1", "csv"):
            return Reply(b"no such scope", status=404)
        header, *lines = request.files["upload"].decode().splitlines()
        if header.split() != ["name", "ra", "dec"]:
            return Reply(b"no such list", status=404)
        listed = [line.split() for line in lines if line.strip()]
        sent = _vectors(np.array([row[1:] for row in listed], float))
        there = _vectors(self._places)
        database = self._tables()
        database.execute("CREATE TABLE upload (up_id, up_name)")
        database.executemany(
            "INSERT INTO upload VALUES (?, ?)", [(number, row[0]) for number, row in enumerate(listed)]
        )
        database.execute("CREATE TABLE x (up_id, objID)")
        for number, place in enumerate(sent):
            apart = np.linalg.norm(there - place, axis=1)
            one = int(np.argmin(apart))
            if 2 * np.degrees(np.arcsin(apart[one] / 2)) * 60 <= float(request.form["radius"]):
                database.execute("INSERT INTO x VALUES (?, ?)", (number, one))
        return self._run(database, request.form["uquery"].replace("#", "").replace("dbo.", ""))

    def _tables(self) -> sqlite3.Connection:
        database = sqlite3.connect(":memory:")
        database.create_function("fPhotoTypeN", 1, {3: "GALAXY", 6: "STAR"}.get)
        database.execute(f"CREATE TABLE SpecObjAll ({', '.join(self._names)})")
        database.executemany(f"INSERT INTO SpecObjAll VALUES ({', '.join('?' * len(self._names))})", self._rows)
        database.execute(f"CREATE TABLE PhotoObjAll ({', '.join(PHOTOMETRY)})")
        photometry = [(number, *place, 3) for number, place in enumerate(self._places.tolist())]
        database.executemany("INSERT INTO PhotoObjAll VALUES (?, ?, ?, ?)", photometry)
        return database

    def _run(self, database: sqlite3.Connection, query: str) -> Reply:
        try:
            cursor = database.execute(query)
        except sqlite3.OperationalError as error:
            name = str(error).rpartition(".")[2]
            return Reply(f"SQL returned the following error: Invalid column name '{name}'.".encode(), status=200)
        rows = cursor.fetchmany(self.rows)
        header = ",".join(name[0] for name in cursor.description)
        lines = ["#Table1", header, *(",".join(str(value) for value in row) for row in rows)]
        return Reply(("\n".join(lines) + "\n").encode(), "text/plain; charset=utf-8")


def _vectors(places: np.ndarray) -> np.ndarray:
    ra, dec = np.radians(places).T
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
