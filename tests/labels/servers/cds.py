"""CDS XMatch: a list and a catalogue in, a VOTable of their pairs out; whoever asks in parallel is banned."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree
from servers.loopback import HttpRequest, Loopback, Reply
from servers.tap import status_votable, votable

from zmill.catalog.sky import unit_vectors

ERROR = (
    '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">'
    '<INFO ID="QUERY_STATUS" name="QUERY_STATUS" value="ERROR">{}</INFO></RESOURCE></VOTABLE>'
)


class XMatch(Loopback):
    """The service with one catalogue, which has its positions in `RAJ2000` and `DEJ2000`."""

    def __init__(self, name: str, catalog: Table) -> None:
        super().__init__(self._match)
        self._name, self._catalog = name, catalog
        self._tree = cKDTree(unit_vectors(np.asarray(catalog["RAJ2000"]), np.asarray(catalog["DEJ2000"])))

    def _match(self, request: HttpRequest) -> Reply:
        if self.most_at_once > 1:
            return Reply(status_votable("ERROR", "banned"), "text/xml", 403)
        if request.form["cat2"] != f"vizier:{self._name}":
            return Reply(ERROR.format(f"there is no {request.form['cat2']}").encode(), "text/xml", 400)
        sent = Table.read(request.files["cat1"].decode(), format="ascii.csv")
        positions = unit_vectors(np.asarray(sent[request.form["colRA1"]]), np.asarray(sent[request.form["colDec1"]]))
        chord = 2 * np.sin(np.radians(float(request.form["distMaxArcsec"]) / 3600) / 2)
        pairs = self._tree.query_ball_point(positions, chord)
        rows = [
            (*map(_plain, sent[first]), *map(_plain, self._catalog[second]))
            for first, near in enumerate(pairs)
            for second in near
        ]
        return Reply(votable([*sent.colnames, *self._catalog.colnames], rows), "application/x-votable+xml")


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
