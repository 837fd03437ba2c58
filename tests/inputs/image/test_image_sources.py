"""Stamps that are not in the survey's own files: joined by identifier, position or row, counted, and imported again when they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from zmill.catalog import hats
from zmill.config import ConfigError, Partitions
from zmill.inputs.image.kind import ImageKind
from zmill.inputs.image.sources import settings_of, source_types
from zmill.inputs.registry import further_files
from zmill.survey.check import check_columns
from zmill.survey.importer import ImportFailed, import_survey
from zmill.survey.readers import ReadError, open_table
from zmill.survey_definition import Survey
from zmill.workflow.input_files import find

ROWS, BANDS, SIZE = 60, ["g", "r"], 8
SHAPE = (2, SIZE, SIZE)
RNG = np.random.default_rng(4)
STAMPS = (RNG.normal(0, 1, (ROWS, *SHAPE)) + np.arange(ROWS)[:, None, None, None]).astype(np.float32)
IDS = RNG.permutation(10 * np.arange(ROWS)) + 7
RA, DEC = RNG.uniform(10, 12, ROWS), RNG.uniform(-1, 1, ROWS)


def survey(source: dict[str, Any], **section: Any) -> Survey:
    section = {"bands": BANDS, "size": SIZE, "pixel_scale": 0.4, "flux": "cube", "source": source} | section
    columns = {"object_id": "id", "ra": "ra", "dec": "dec"}
    return Survey.model_validate({"files": ["s.parquet"], "columns": columns, "image": section})


def write_survey(folder: Path, ids: Any = IDS) -> None:
    pq.write_table(pa.table({"id": ids, "ra": RA, "dec": DEC}), folder / "s.parquet", row_group_size=17)


def imported(folder: Path, definition: Survey) -> tuple[dict[Any, np.ndarray], Any, list[str]]:
    """Stamps by identifier, the counts, and the warnings."""
    results = folder / "results"
    found = find(definition, folder, further=further_files(definition))
    files = [Path(file) for file in found.survey]
    check_columns(files, definition, found.further)
    counts = import_survey(
        files, definition, Partitions(max_rows=25), results / "survey", results / "bad.parquet", 1, folder
    )
    table = pa.concat_tables(
        [hats.read_columns(results / "survey", one) for one in hats.partitions(results / "survey")]
    )
    kind = ImageKind.of(definition)
    assert kind is not None
    rows = kind.read(table)
    notes = __import__("json").loads((results / "import.json").read_text())
    stamps = {
        value: (rows.flux[number], rows.good[number]) for number, value in enumerate(table["object_id"].to_pylist())
    }
    assert len(stamps) == counts.kept == ROWS
    return (
        {value: flux for value, (flux, good) in stamps.items() if good > 0},
        counts,
        [str(w) for w in notes["warnings"]],
    )


def columns(order: np.ndarray, text: bool = False) -> dict[str, Any]:
    ids = np.array([f"J{value}" for value in IDS]) if text else IDS
    shift = 0.3 / 3600
    return {"name": ids[order], "alpha": RA[order] + shift, "delta": DEC[order], "cube": STAMPS[order]}


def npz(path: Path, content: dict[str, Any]) -> None:
    np.savez(path, **content)


def hdf5(path: Path, content: dict[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values.astype("S8") if values.dtype.kind == "U" else values


def parquet(path: Path, content: dict[str, Any]) -> None:
    cube = content["cube"].reshape(len(content["cube"]), -1)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(cube.reshape(-1)), cube.shape[1])
    pq.write_table(pa.table(content | {"cube": flat}), path, row_group_size=11)


WRITERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "npz": npz,
    "hdf5": hdf5,
    "parquet": parquet,
    "fits": lambda path, content: Table(content).write(path),
}
FILES = {"type": "table", "files": ["cubes/*"]}
BY_ID = FILES | {"join": "object_id", "object_id": "name"}
BY_POSITION = FILES | {"join": "position", "ra": "alpha", "dec": "delta"}


def write_cubes(folder: Path, ending: str, order: np.ndarray, text: bool = False) -> None:
    """Two files of stamps in this order of the survey's rows."""
    (folder / "cubes").mkdir(exist_ok=True)
    for number, part in enumerate(np.array_split(order, 2)):
        WRITERS[ending](folder / "cubes" / f"{number}.{ending}", columns(part, text))


@pytest.mark.parametrize("ending", list(WRITERS))
@pytest.mark.parametrize("by", ["numbers", "texts", "position"])
def test_stamps_are_joined_from_cubes(tmp_path: Path, ending: str, by: str) -> None:
    order = RNG.permutation(ROWS)[5:]  # five rows have no stamp
    text = by == "texts"
    write_survey(tmp_path, pa.array([f"J{value}" for value in IDS]) if text else IDS)
    write_cubes(tmp_path, ending, order, text)
    stamps, counts, warnings = imported(tmp_path, survey(BY_POSITION if by == "position" else BY_ID))
    assert sorted(stamps) == sorted(f"J{value}" if text else value for value in IDS[order])
    for row in order:
        assert np.array_equal(stamps[f"J{IDS[row]}" if text else IDS[row]], STAMPS[row])
    assert counts.json()["faults"] == {"image": {"image_missing": 5}} and warnings == []


def test_stamps_are_joined_by_the_number_of_the_row(tmp_path: Path) -> None:
    write_survey(tmp_path)
    write_cubes(tmp_path, "npz", np.arange(ROWS))
    definition = survey(FILES | {"join": "row"})
    stamps, _, _ = imported(tmp_path, definition)
    assert all(np.array_equal(stamps[value], STAMPS[row]) for row, value in enumerate(IDS.tolist()))
    write_cubes(tmp_path, "npz", np.arange(ROWS - 1))
    with pytest.raises(ConfigError, match="the survey's files have 60 rows, and there are 59 stamps"):
        imported(tmp_path, definition)


def test_repeated_and_superfluous_stamps_are_counted(tmp_path: Path) -> None:
    write_survey(tmp_path)
    write_cubes(tmp_path, "npz", np.append(np.arange(40), 4))
    content = columns(np.array([9])) | {"name": np.array([999_999])}
    npz(tmp_path / "cubes" / "2.npz", content)
    stamps, counts, warnings = imported(tmp_path, survey(BY_ID))
    assert sorted(stamps) == sorted(IDS[:40])
    assert counts.json()["faults"] == {"image": {"image_missing": 20, "image_repeated": 1}}
    assert "2 of 42 stamps of image.source belong to no row" in " ".join(warnings)
    npz(tmp_path / "cubes" / "0.npz", content)
    with pytest.raises(ImportFailed, match="rows are of no use"):
        imported(tmp_path, survey(BY_ID))


def test_stamps_of_other_objects_are_refused_beside_photometry(tmp_path: Path) -> None:
    magnitudes = {"mag_g": np.full(ROWS, 20.0), "mag_r": np.full(ROWS, 19.5)}
    pq.write_table(pa.table({"id": IDS, "ra": RA, "dec": DEC} | magnitudes), tmp_path / "s.parquet")
    (tmp_path / "cubes").mkdir()
    npz(tmp_path / "cubes" / "0.npz", columns(np.arange(9)) | {"name": np.arange(9) + 10**6})
    joint = survey(BY_ID).model_dump(mode="json")
    joint["columns"]["flux"], joint["bands"] = "mag_{band}", BANDS
    with pytest.raises(ReadError, match=r"none of the 9 stamps of image.source belongs to one of the 60 rows"):
        imported(tmp_path, Survey.model_validate(joint))


def test_columns_of_stamps_may_have_the_names_of_those_of_the_survey(tmp_path: Path) -> None:
    """Magnitudes and planes of stamps of the same names."""
    magnitudes = {band: np.full(ROWS, 20.0 + number) for number, band in enumerate(BANDS)}
    pq.write_table(pa.table({"id": IDS, "ra": RA, "dec": DEC} | magnitudes), tmp_path / "s.parquet")
    (tmp_path / "cubes").mkdir()
    content = columns(np.arange(ROWS))
    planes = {band: content["cube"][:, number] for number, band in enumerate(BANDS)}
    npz(tmp_path / "cubes" / "0.npz", {"id": content["name"], **planes})
    joint = survey(BY_ID | {"object_id": "id"}, flux="{band}").model_dump(mode="json")
    joint["columns"]["flux"], joint["bands"] = "{band}", BANDS
    stamps, counts, _ = imported(tmp_path, Survey.model_validate(joint))
    assert all(np.array_equal(stamps[value], STAMPS[row]) for row, value in enumerate(IDS.tolist()))
    results = tmp_path / "results" / "survey"
    table = pa.concat_tables([hats.read_columns(results, one) for one in hats.partitions(results)])
    assert set(table["mag_g"].to_pylist()) == {20.0} and set(table["mag_r"].to_pylist()) == {21.0}
    assert counts.json()["faults"] == {}


def test_changed_stamps_are_imported_again(tmp_path: Path) -> None:
    write_survey(tmp_path)
    write_cubes(tmp_path, "npz", np.arange(ROWS))
    before, _, _ = imported(tmp_path, survey(BY_ID))
    changed = columns(np.arange(30)) | {"cube": STAMPS[:30] + 1}
    npz(tmp_path / "cubes" / "0.npz", changed)
    after, _, _ = imported(tmp_path, survey(BY_ID))
    for row, value in enumerate(IDS.tolist()):
        assert np.array_equal(after[value], STAMPS[row] + (row < 30)) and np.array_equal(before[value], STAMPS[row])


def test_files_that_contradict_the_definition_are_refused(tmp_path: Path) -> None:
    write_survey(tmp_path)
    write_cubes(tmp_path, "npz", np.arange(ROWS))
    for source, section, message in (
        (BY_ID, {"flux": "cub"}, r"there is no column 'cub' \(image.flux\).*cube"),
        (BY_ID | {"object_id": "namee"}, {}, r"there is no column 'namee' \(image.source.object_id\)"),
        (BY_ID, {"size": 9}, "has the shape 2 x 8 x 8, but image.bands and image.size make it 2 x 9 x 9"),
        (BY_ID, {"order": "bands_last"}, "write order: bands_first"),
        (BY_ID | {"files": ["nowhere/*"]}, {}, "image.source.files: no file fits"),
        (BY_ID | {"join": "name"}, {}, "join: expected 'object_id', 'position' or 'row'"),
        (BY_ID | {"typo": 1}, {}, "typo: unknown key"),
        ({"type": "tabel"}, {}, "image.source.type: there is no type 'tabel'; did you mean 'table'"),
    ):
        with pytest.raises(ConfigError, match=message):
            imported(tmp_path, survey(source, **section))
    (tmp_path / "cubes" / "1.npz").unlink()
    write = columns(np.arange(9))
    npz(tmp_path / "cubes" / "1.npz", write | {"cube": write["cube"].astype(np.float64)})
    with pytest.raises(ConfigError, match="make them alike"):
        imported(tmp_path, survey(BY_ID))


# ----------------------------------------------------------------------------------------------- FITS stamps


def header(row: int, scale: float = 0.4, flip: int = 1, shift: float = 0.0) -> fits.Header:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [RA[row], DEC[row] + shift / 3600]
    wcs.wcs.crpix = [(SIZE + 1) / 2] * 2
    wcs.wcs.cdelt = [-flip * scale / 3600, scale / 3600]
    return wcs.to_header()


def write_stamps(folder: Path, rows: range, layout: str = "cube", **options: Any) -> None:
    (folder / "stamps").mkdir(exist_ok=True)
    for row in rows:
        path = folder / "stamps" / f"obj-{IDS[row]}.fits"
        head = header(row, **options)
        if layout == "cube":
            hdus = [fits.PrimaryHDU(STAMPS[row], head)]
        elif layout == "bands":
            hdus = [fits.PrimaryHDU(STAMPS[row], head)]
            hdus[0].header["BANDS"] = "gr"
        else:
            images = [fits.ImageHDU(STAMPS[row, number], head, name=f"SCI_{band}") for number, band in enumerate(BANDS)]
            hdus = [fits.PrimaryHDU(), *images]
        fits.HDUList(hdus).writeto(path, overwrite=True)


BY_NAME = {"type": "stamps", "files": ["stamps"], "name": "obj-{object_id}.fits"}
LAYOUTS = {"cube": "image", "bands": "{band}", "extensions": "SCI_{band}"}


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("source", [BY_NAME, {"type": "stamps", "files": ["stamps/*.fits"]}])
def test_stamps_are_joined_from_one_file_each(tmp_path: Path, source: dict[str, Any], layout: str) -> None:
    write_survey(tmp_path)
    write_stamps(tmp_path, range(ROWS - 6), layout)
    flux = LAYOUTS[layout].upper().replace("{BAND}", "{band}") if layout == "extensions" else LAYOUTS[layout]
    if layout == "extensions":  # names of extensions are upper case in FITS
        flux = [f"SCI_{band.upper()}" for band in BANDS]  # type: ignore[assignment]
    stamps, counts, _ = imported(tmp_path, survey(source, flux=flux))
    assert counts.json()["faults"] == {"image": {"image_missing": 6}}
    for row in range(ROWS - 6):
        assert np.array_equal(stamps[IDS[row]], STAMPS[row])


def test_faults_of_fits_stamps(tmp_path: Path) -> None:
    write_survey(tmp_path)
    write_stamps(tmp_path, range(40), "extensions")
    write_stamps(tmp_path, range(1, 2), "extensions", scale=0.2)
    write_stamps(tmp_path, range(2, 3), "extensions", flip=-1)
    write_stamps(tmp_path, range(3, 4), "extensions", shift=30)
    with fits.open(tmp_path / "stamps" / f"obj-{IDS[4]}.fits") as hdus:
        fits.HDUList(hdus[:2]).writeto(tmp_path / "one.fits")
    (tmp_path / "one.fits").rename(tmp_path / "stamps" / f"obj-{IDS[4]}.fits")
    small = [fits.ImageHDU(STAMPS[5, 0, :5, :5], name=f"SCI_{band}") for band in BANDS]
    fits.HDUList([fits.PrimaryHDU(), *small]).writeto(tmp_path / "stamps" / f"obj-{IDS[5]}.fits", overwrite=True)
    (tmp_path / "stamps" / "twice").mkdir()
    definition = survey(BY_NAME, flux=[f"SCI_{band.upper()}" for band in BANDS])
    stamps, counts, _ = imported(tmp_path, definition)
    assert counts.json()["faults"]["image"] == {
        "image_band_missing": 1,
        "image_elsewhere": 1,
        "image_flipped": 1,
        "image_missing": 20,
        "image_other_scale": 1,
        "image_wrong_shape": 1,
    }
    assert sorted(stamps) == sorted(np.delete(IDS[:40], [1, 3, 5]))
    (tmp_path / "stamps" / f"obj-{IDS[7]}.fits").write_bytes(b"SIMPLE  =  broken")
    with pytest.raises(ReadError, match=f"obj-{IDS[7]}.fits.*the stamp of {IDS[7]}"):
        imported(tmp_path, definition)


def test_stamps_of_another_scale_or_without_a_position_are_refused(tmp_path: Path) -> None:
    write_survey(tmp_path)
    write_stamps(tmp_path, range(30), scale=0.2)
    with pytest.raises(ConfigError, match=r"pixels are 0.2 arcsec wide, by its WCS, but image.pixel_scale is 0.4"):
        imported(tmp_path, survey(BY_NAME, flux="image"))
    for row in range(30):
        fits.PrimaryHDU(STAMPS[row]).writeto(tmp_path / "stamps" / f"obj-{IDS[row]}.fits", overwrite=True)
    with pytest.raises(ConfigError, match="it has no WCS"):
        imported(tmp_path, survey({"type": "stamps", "files": ["stamps"]}, flux="image"))
    assert len(imported(tmp_path, survey(BY_NAME, flux="image"))[0]) == 30, "which names do not need"


def test_a_survey_of_fits_stamps_alone(tmp_path: Path) -> None:
    write_stamps(tmp_path, range(ROWS), "bands")
    content = survey(BY_NAME, flux="{band}").model_dump(mode="json")
    del content["sections"]["image"]["source"]
    content |= {"files": ["stamps/*.fits"], "format": "fits_stamp"}
    content["columns"]["object_id"] = "file"
    stamps, counts, _ = imported(tmp_path, Survey.model_validate(content))
    assert counts.json()["faults"] == {}
    assert all(np.array_equal(stamps[f"obj-{IDS[row]}"], STAMPS[row]) for row in range(ROWS))
    content["sections"]["image"]["flux"] = "image"
    with pytest.raises(
        ConfigError, match=r"'image' \(image.flux\) has the planes g, r, by its keyword BANDS: write '{band}'"
    ):
        imported(tmp_path, Survey.model_validate(content))
    table = open_table(tmp_path / "stamps" / f"obj-{IDS[0]}.fits", "fits_stamp")
    (batch,) = table.batches(["ra", "dec", "pixel_scale"], 1)
    assert [batch.column(number)[0].as_py() for number in range(3)] == pytest.approx([RA[0], DEC[0], 0.4])


def test_settings_of_all_types_are_documented() -> None:
    import json

    root = Path(__file__).resolve().parents[3]
    schemas = {name: source.Settings.model_json_schema() for name, source in source_types().items()}
    assert json.loads((root / "docs/schema/image_sources.json").read_text()) == schemas
    assert settings_of(ImageKind.section(survey(BY_ID))).patterns == ["cubes/*"]
