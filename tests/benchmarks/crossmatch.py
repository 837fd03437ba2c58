"""Cross-match of a survey with spectra over 1,000 square degrees, against LSDB and STILTS.

Whole processes on the same positions: zmill and LSDB read the two HATS catalogues, STILTS two FITS files. Every one
finds the nearest survey object within 1 arcsec of each spectrum and writes the matches.

    python tests/benchmarks/crossmatch.py [--rows 10000000] [--spectra 1000000] [--peers ENV] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from zmill.catalog import hats  # noqa: E402
from zmill.catalog.hats import Partition  # noqa: E402
from zmill.catalog.sky import HEALPIX_COLUMN, at_order, healpix  # noqa: E402

ORDER = 3
OFFSET_ARCSEC = 0.15
UNRELATED = 0.05

ZMILL = """
import sys
sys.path.insert(0, {scripts!r})
from pathlib import Path
from types import SimpleNamespace
from zmill.crossmatch.catalogs import crossmatch
from zmill.workflow.job import job
work = Path({work!r})
with job(SimpleNamespace(log=[work / "zmill.log"], output=[], resources={{}})):
    crossmatch(work / "survey", work / "specz", work / "matches.parquet", work / "matches.json", threads=2)
status = Path("/proc/self/status").read_text()
(work / "peak_kib").write_text(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""
LSDB = """
import lsdb
from dask.distributed import Client
if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        survey = lsdb.open_catalog({work!r} + "/survey", columns=["object_id", "ra", "dec"])
        specz = lsdb.open_catalog({work!r} + "/specz", columns=["specz_id", "ra", "dec", "redshift"])
        found = specz.crossmatch(survey, radius_arcsec=1.0, n_neighbors=1, require_right_margin=False,
                                 suffixes=("_specz", ""))
        found.write_catalog({work!r} + "/lsdb", overwrite=True)
"""


def main() -> None:
    """Make the catalogues, time each, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--spectra", type=int, help="default: a tenth of the rows")
    parser.add_argument("--repeat", type=int, default=3, help="runs of zmill; the median counts")
    parser.add_argument("--peers", type=Path, help="environment that has lsdb")
    parser.add_argument("--work", type=Path, help="folder for the catalogues; a temporary one when left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        make(work, arguments.rows, arguments.spectra or arguments.rows // 10)
        figures = measure(work, arguments.peers, arguments.repeat)
    figures["load_average"] = round(os.getloadavg()[0], 1)
    out = ROOT / "results" / "benchmarks" / "crossmatch.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:24s} {value:12.4g}")


def measure(work: Path, peers: Path | None, repeat: int) -> dict[str, float]:
    """Seconds, peak memory and matches of each program."""
    script = ZMILL.format(scripts=str(ROOT / "workflow_scripts"), work=str(work))
    run([sys.executable, "-c", script])
    seconds = float(np.median([run([sys.executable, "-c", script]) for _ in range(repeat)]))
    peak = int((work / "peak_kib").read_text()) / 2**20
    matched = json.loads((work / "matches.json").read_text(encoding="utf-8"))["matched"]
    figures = {"seconds": seconds, "peak_gib": peak, "matched": matched}
    if peers:
        program = work / "lsdb_match.py"
        program.write_text(LSDB.format(work=str(work)), encoding="utf-8")
        figures["seconds_lsdb"] = run([str(peers / "bin" / "python"), str(program)])
        figures["matched_lsdb"] = _rows(work / "lsdb")
        figures["ratio_lsdb"] = figures["seconds_lsdb"] / seconds
    if shutil.which("stilts"):
        command = ["stilts", "-Xmx4g", "tskymatch2", "in1=survey.fits", "in2=specz.fits", "ra1=ra", "dec1=dec"]
        command += ["ra2=ra2", "dec2=dec2", "error=1", "find=best", "out=stilts.fits"]
        figures["seconds_stilts"] = run(command, work)
        figures["matched_stilts"] = len(Table.read(work / "stilts.fits"))
        figures["ratio_stilts"] = figures["seconds_stilts"] / seconds
    return figures


def _rows(catalog: Path) -> int:
    lines = (next(catalog.rglob("hats.properties"))).read_text(encoding="utf-8").splitlines()
    return int(next(line.partition("=")[2] for line in lines if line.startswith("hats_nrows")))


def run(command: list[str], where: Path | None = None) -> float:
    """Seconds that a process takes; its byte code is kept, as for any installed program."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr.decode(errors='replace')}")
    return seconds


def make(work: Path, rows: int, spectra: int) -> None:
    """Survey and spectra at random over 1,000 square degrees, in HATS and FITS."""
    if (work / "made.json").is_file() and json.loads((work / "made.json").read_text()) == [rows, spectra]:
        return
    random = np.random.default_rng(1)
    ra, dec = positions(random, rows)
    order = np.argsort(healpix(ra, dec), kind="stable")
    ra, dec = ra[order], dec[order]
    write(work / "survey", ra, dec, {"object_id": np.arange(rows), "mag_r": random.normal(22, 2, rows).astype("f4")})
    Table({"object_id": np.arange(rows), "ra": ra, "dec": dec}).write(work / "survey.fits", overwrite=True)
    true = random.choice(rows, spectra - int(UNRELATED * spectra), replace=False)
    ra2, dec2 = positions(random, spectra - len(true))
    sigma = OFFSET_ARCSEC / 3600
    dec2 = np.append(dec[true] + random.normal(0, sigma, len(true)), dec2)
    ra2 = np.append(ra[true] + random.normal(0, sigma, len(true)) / np.cos(np.radians(dec[true])), ra2)
    order = np.argsort(healpix(ra2, dec2), kind="stable")
    ra2, dec2 = ra2[order], dec2[order]
    columns = {
        "specz_id": np.char.add("spec-", np.arange(spectra).astype(str)),
        "redshift": random.gamma(2, 0.2, spectra),
        "redshift_err": np.full(spectra, 1e-4, "f4"),
        "quality": np.full(spectra, 4, np.int8),
        "label_source": np.full(spectra, "random"),
        "radius_arcsec": np.ones(spectra, "f4"),
    }
    write(work / "specz", ra2, dec2, columns)
    Table({"ra2": ra2, "dec2": dec2, "redshift": columns["redshift"]}).write(work / "specz.fits", overwrite=True)
    (work / "made.json").write_text(json.dumps([rows, spectra]))


def positions(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform positions in a square of 1,000 square degrees on the equator."""
    side = 1000**0.5
    z = np.sin(np.radians(side / 2))
    return random.uniform(150, 150 + side, rows), np.degrees(np.arcsin(random.uniform(-z, z, rows)))


def write(catalog: Path, ra: np.ndarray, dec: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """A HATS catalogue of rows in the order of the sky, in partitions of order 3."""
    shutil.rmtree(catalog, ignore_errors=True)
    index = healpix(ra, dec)
    table = pa.table({HEALPIX_COLUMN: index, "ra": ra, "dec": dec, **columns})
    pixel = at_order(index, ORDER)
    first = np.flatnonzero(np.diff(pixel, prepend=-1))
    found = []
    for low, high in zip(first, np.append(first[1:], len(pixel)), strict=True):
        found.append(Partition(ORDER, int(pixel[low])))
        with hats.write_partition(catalog, found[-1], table.schema) as writer:
            writer.write(table.slice(low, high - low))
    hats.finish(catalog, catalog.name, found)


if __name__ == "__main__":
    main()
