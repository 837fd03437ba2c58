"""SkyServer's SQL search: the queries are run by SQLite on a table of spectra, the answers are CSV after `#Table1`."""

from __future__ import annotations

import sqlite3

from astropy.table import Table
from servers.loopback import Asked, Loopback, Reply


class SkyServer(Loopback):
    """A SkyServer.

    Parameters
    ----------
    rows : most rows of an answer; more are left out in silence, as the real one does.
    names : other names of columns: `{"zWarning": "zwarn"}`.
    """

    def __init__(self, spectra: Table, rows: int = 500_000, names: dict[str, str] | None = None) -> None:
        super().__init__(self._search)
        self.rows = rows
        self._names = [(names or {}).get(name, name) for name in spectra.colnames]
        columns = [column.astype(str) if name == "specObjID" else column for name, column in spectra.columns.items()]
        self._rows = list(zip(*(column.tolist() for column in columns), strict=True))

    def _search(self, asked: Asked) -> Reply:
        if not asked.path.endswith("/en/tools/search/x_results.aspx") or asked.form.get("searchtool") != "SQL":
            return Reply(b"no such page", status=404)
        database = sqlite3.connect(":memory:")
        database.execute(f"CREATE TABLE SpecObjAll ({', '.join(self._names)})")
        database.executemany(f"INSERT INTO SpecObjAll VALUES ({', '.join('?' * len(self._names))})", self._rows)
        try:
            cursor = database.execute(asked.form["cmd"])
        except sqlite3.OperationalError as error:
            name = str(error).rpartition(".")[2]
            return Reply(f"SQL returned the following error: Invalid column name '{name}'.".encode(), status=200)
        rows = cursor.fetchmany(self.rows)
        header = ",".join(name[0] for name in cursor.description)
        lines = ["#Table1", header, *(",".join(str(value) for value in row) for row in rows)]
        return Reply(("\n".join(lines) + "\n").encode(), "text/plain; charset=utf-8")
