"""NED's older service: cones in, VOTables of its main table out, in the form that was recorded."""

from __future__ import annotations

from xml.sax.saxutils import escape

from astropy.table import Table
from servers.loopback import HttpRequest, Loopback, Reply
from servers.tap import contains

NAMES = {
    "Object Name": ("char", "prefname"),
    "RA": ("double", "ra"),
    "DEC": ("double", "dec"),
    "Type": ("char", "prefphytype"),
    "Velocity": ("double", ""),
    "Redshift": ("double", "z"),
    "Redshift Flag": ("char", "zflag"),
}
NO_OBJECT = """<?xml version="1.0"?><VOTABLE version="1.1"><RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/>
<PARAM name="queryDateTime" datatype="char" arraysize="*" value="2026-01-01T00:00:00PST"/>
<PARAM name="Error" datatype="char" arraysize="*" value=" No object found."/></RESOURCE></VOTABLE>"""


class Cones(Loopback):
    """The service.

    Parameters
    ----------
    names : other names of its columns: `{"Redshift": "z"}`.
    """

    def __init__(self, directory: Table, names: dict[str, str] | None = None) -> None:
        super().__init__(self._search)
        self._directory, self._names = directory, names or {}

    def _search(self, request: HttpRequest) -> Reply:
        if request.path != "/objsearch" or request.form.get("search_type") != "Near Position Search":
            return Reply(b"no such page", status=404)
        ra = 15 * float(request.form["lon"])  # the client sends hours
        circle = f"{ra!r} {request.form['lat']} {float(request.form['radius']) / 60!r}"
        rows = [row for row in self._directory if contains(f"{row['ra']} {row['dec']}", circle)]
        if not rows:
            return Reply(NO_OBJECT.encode(), "text/xml")
        size = {"char": ' arraysize="*"', "double": ""}
        fields = "".join(
            f'<FIELD ID="main_col{number}" name="{self._names.get(name, name)}" datatype="{kind}"{size[kind]}/>'
            for number, (name, (kind, _)) in enumerate(NAMES.items(), 2)
        )
        cells = "".join(
            "<TR>" + "".join(f"<TD>{_cell(row, column)}</TD>" for _, column in NAMES.values()) + "</TR>" for row in rows
        )
        body = (
            '<?xml version="1.0"?><VOTABLE version="1.1"><RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/>'
            f'<TABLE ID="NED_MainTable">{fields}<DATA><TABLEDATA>{cells}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>'
        )
        return Reply(body.encode(), "text/xml")


def _cell(row: Table.Row, column: str) -> str:
    if not column or row[column] != row[column]:
        return ""
    return escape(str(row[column]))
