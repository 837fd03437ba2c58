"""Services and files of the same spectra give the same labels; what the services say is kept with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from servers.sky import directory, make_request, spectra
from servers.skyserver import SkyServer
from servers.tap import Tap

from zmill.catalog import hats
from zmill.catalog.files import read_json
from zmill.catalog.hats import Partition
from zmill.catalog.sky import HEALPIX_COLUMN, HEALPIX_ORDER
from zmill.config import ConfigError, Labels, Partitions
from zmill.labels.base import source_of
from zmill.labels.build import build
from zmill.survey_definition import LabelSource

RA, DEC, SIZE = 150.0, 2.0, 0.8
SDSS = {"id": "specObjID", "ra": "ra", "dec": "dec", "redshift": "z", "redshift_err": "zErr", "flag": "zWarning", "class": "class", "primary": "sciencePrimary"}  # fmt: skip
NED = {"id": "prefname", "ra": "ra", "dec": "dec", "redshift": "z", "redshift_err": "zunc", "flag": "zflag", "class": "prefphytype"}  # fmt: skip


def write_survey(results: Path) -> None:
    """A survey that fills the square."""
    footprint = make_request(results, RA, DEC, SIZE).footprint
    shift = 2 * (HEALPIX_ORDER - 10)
    index = np.concatenate(
        [np.arange(*edges, 1 << shift) for edges in zip(footprint.start, footprint.end, strict=True)]
    )
    pixels = np.unique(index >> 58)
    for pixel in pixels.tolist():
        rows = pa.table({HEALPIX_COLUMN: index[index >> 58 == pixel]})
        with hats.write_partition(results / "survey", Partition(0, pixel), rows.schema) as writer:
            writer.write(rows)
    hats.finish(results / "survey", "survey", [Partition(0, pixel) for pixel in pixels.tolist()])


def labels(folder: Path, place: str, *sources: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The labels as a pandas table, and what `labels.json` says."""
    results = folder / place
    write_survey(results)
    named = [LabelSource.model_validate(source) for source in sources]
    build(named, Labels(), Partitions(max_rows=100), 1.0, folder, results)
    parts = [hats.read_columns(results / "specz", partition) for partition in hats.partitions(results / "specz")]
    return pa.concat_tables(parts).to_pandas(), read_json(results / "specz" / "labels.json")


def test_services_and_files_give_the_same_labels(tmp_path: Path) -> None:
    sky = spectra(RA, DEC, SIZE, 1500)
    objects = directory(sky)
    sky.write(tmp_path / "sdss.fits")
    objects.write(tmp_path / "ned.vot", format="votable")
    from_files, told = labels(
        tmp_path,
        "files",
        {"name": "sdss", "source": "file", "files": ["sdss.fits"], "scheme": "sdss", "columns": SDSS},
        {"name": "ned", "source": "file", "files": ["ned.vot"], "scheme": "ned", "columns": NED},
    )
    quick = {"interval_s": 0, "backoff_s": 0.01}
    with SkyServer(sky) as skyserver, Tap({"NEDTAP.objdir": objects}, looks=0) as tap:
        skyserver.faults, tap.faults = ["503"], ["", "html"]
        from_services, said = labels(
            tmp_path,
            "services",
            {"name": "sdss", "source": "sdss", "url": skyserver.url, "max_age_days": 10, **quick},
            {"name": "ned", "source": "ned", "url": f"{tap.url}/tap", **quick},
        )
    assert len(from_files) > 300 and set(from_files["label_source"]) == {"sdss", "ned"}
    assert from_services.equals(from_files)
    assert said["sources"]["sdss"] == told["sources"]["sdss"]
    assert said["sources"]["ned"]["accepted"] == told["sources"]["ned"]["accepted"]
    assert said["warnings"] == []
    requested, again = (datetime.fromisoformat(said["answers"][key]) for key in ("when", "until"))
    assert again - requested == timedelta(days=10) and datetime.now(UTC) - requested < timedelta(hours=1), (
        "SDSS is the first"
    )
    assert told["answers"] == {"when": None, "until": None}


def test_an_unreachable_service_is_a_warning_in_the_results(tmp_path: Path) -> None:
    sky = spectra(RA, DEC, SIZE, 600)
    quick = {"interval_s": 0, "backoff_s": 0.01, "retries": 1}
    with SkyServer(sky) as server:
        source = {"name": "sdss", "source": "sdss", "url": server.url, **quick}
        known, _ = labels(tmp_path, "results", source)
    again, record = labels(tmp_path, "results", {**source, "max_age_days": 1e-9})
    assert again.equals(known)
    assert len(record["warnings"]) == 1 and "their cached answers are used" in record["warnings"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "sdss", "data_relase": 17}, "data_relase: unknown key; did you mean 'data_release'"),
        ({"source": "sdss", "jobs": 50}, "jobs"),
        ({"source": "ned", "interface": "soap"}, "interface"),
        ({"source": "xmatch"}, "catalog"),
        ({"source": "sdss_bulk", "checksum": "abc"}, "checksum"),
        ({"source": "sdss_bulk", "url": "https://example.org/"}, "expected the address of a file"),
        (
            {"source": "cache"},
            "there is no source 'cache'.*the sources are file, ned, sdss, sdss_bulk, sdss_crossid, xmatch",
        ),
    ],
)
def test_wrong_settings_are_refused_before_any_job(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source_of(LabelSource.model_validate({"name": "one", **changes}))


def test_a_source_with_its_defaults() -> None:
    for name in ("sdss", "ned", "sdss_bulk"):
        module, settings = source_of(LabelSource.model_validate({"name": "one", "source": name}))
        assert isinstance(settings, module.Settings)


def test_sources_import_no_client_before_the_first_request() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from zmill.survey_definition import LabelSource; from zmill.labels.base import source_of;"
        "[source_of(LabelSource(name='a', source=name)) for name in ('sdss', 'ned', 'sdss_bulk')];"
        "print([name for name in ('astroquery', 'pyvo', 'mocpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_with_library())
    assert done.stdout.strip() == "[]"


def _with_library() -> dict[str, str]:
    import os

    import zmill

    return {**os.environ, "PYTHONPATH": str(Path(zmill.__file__).parents[1])}


def test_the_sky_of_these_tests_is_what_it_says() -> None:
    sky = spectra(RA, DEC, SIZE, 100)
    assert isinstance(sky, Table) and len(directory(sky)) == 200
