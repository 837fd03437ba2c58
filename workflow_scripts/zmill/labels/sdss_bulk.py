"""Spectroscopic redshifts of SDSS from its file of all spectra (`specObj`), downloaded once and read in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import urlparse

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from zmill.catalog.sky import healpix
from zmill.labels import file
from zmill.labels.base import Request
from zmill.labels.download import download
from zmill.labels.fetch import RequestSettings
from zmill.labels.judging import LabelColumns
from zmill.sections import PathText, Text, Url, shown
from zmill.workflow.job import log

COLUMNS = LabelColumns.model_validate(
    {
        "id": "SPECOBJID",
        "ra": "PLUG_RA",
        "dec": "PLUG_DEC",
        "redshift": "Z",
        "redshift_err": "Z_ERR",
        "flag": "ZWARNING",
        "class": "CLASS",
        "primary": "SPECPRIMARY",
    }
)


HASHES = r"[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64}"


class Settings(file.Settings, RequestSettings):
    """An entry of `labels:` with `source: sdss_bulk`."""

    url: Url = "https://data.sdss.org/sas/dr17/sdss/spectro/redux/specObj-dr17.fits"
    """The file, or a mirror of it."""
    checksum: Text | None = None
    """Its MD5, SHA-1 or SHA-256 (the archive's `.sha1sum`); a file with another checksum is refused."""
    files: list[PathText] = Field(default=[])
    """Path of a copy that was downloaded before; then nothing is fetched."""
    columns: LabelColumns = COLUMNS
    """The file's columns."""
    scheme: str | None = "sdss"

    @model_validator(mode="after")
    def _a_name(self) -> Settings:
        if not PurePosixPath(urlparse(self.url).path).name:
            raise ValueError(f"url: expected the address of a file, found {shown(self.url)}")
        if self.checksum is not None and not re.fullmatch(HASHES, self.checksum):
            raise ValueError(
                f"checksum: expected an MD5, SHA-1 or SHA-256 in hexadecimal, found {shown(self.checksum)}"
            )
        return self


def entries(settings: Settings, request: Request) -> Iterator[pa.Table]:
    """All spectra in the footprint and around its edge, of every class and quality, judged; spectra outside are counted.

    Raises
    ------
    LabelsError
        Where the file cannot be downloaded or has another checksum.
    """
    if not settings.files:
        name = PurePosixPath(urlparse(settings.url).path).name
        path = download(settings.url, request.cache / "sdss_bulk" / name, settings.checksum, settings)
        settings = settings.model_copy(update={"files": [str(path.resolve())]})
    elsewhere = 0
    for table in file.entries(settings, request):
        ra, dec = (table[name].to_numpy() for name in ("ra", "dec"))
        positioned = np.isfinite(ra) & np.isfinite(dec) & (np.abs(np.nan_to_num(dec)) <= 90)
        kept = ~positioned
        kept[positioned] = request.footprint.near(healpix(ra[positioned] % 360, dec[positioned]))
        elsewhere += int((~kept).sum())
        yield table.filter(pa.array(kept))
    log.info("%s: %d spectra lie outside the survey's footprint", settings.name, elsewhere)
