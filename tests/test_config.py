"""The configuration: what is accepted, and what a user reads when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zmill import config
from zmill.config import Config, ConfigError, ModelSettings, load, parse
from zmill.strict_yaml import read_yaml
from zmill.survey_definition import Survey

SURVEY = {
    "files": ["photometry.csv"],
    "columns": {"object_id": "id", "ra": "ra", "dec": "dec", "flux": "mag_{band}", "error": "err_{band}"},
    "bands": ["u", "g", "r"],
}


def survey(**changes: object) -> Survey:
    return parse(Survey, {**SURVEY, **changes}, "surveys/mine.yaml")


def test_the_committed_configuration_is_valid_and_its_defaults_are_the_declared_ones(root: Path) -> None:
    values = yaml.safe_load((root / "config.yaml").read_text())
    load(values, root / "surveys")
    declared = Config().model_dump(mode="json")
    assert set(values) == set(declared), "config.yaml shows every key"
    assert values == declared


def test_every_committed_survey_is_valid(root: Path) -> None:
    names = sorted(path.stem for path in (root / "surveys").glob("*.yaml"))
    assert "demo" in names
    for name in names:
        config.load_survey(name, root / "surveys")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"survy": "demo"}, "config.yaml: survy: unknown key; did you mean 'survey'?"),
        ({"labels": {"min_qualty": 3}}, "labels.min_qualty: unknown key; did you mean 'min_quality'?"),
        ({"labels": {"min_quality": 7}}, "labels.min_quality: expected at most 4, found 7"),
        ({"seed": "many"}, "seed: expected a whole number, found 'many'"),
        ({"split": {"train": 0.9}}, "train + valid + calib + test must be 1, found 1.3"),
        ({"split": {"train": 0.8, "valid": 0.0, "calib": 0.1, "test": 0.1}}, "must be above 0"),
        ({"weights": {"neighbours": 5}}, "weights.neighbours: unknown key; did you mean 'neighbors'?"),
        ({"weights": {"clip": 1}}, "weights.clip: expected above 1, found 1"),
        ({"weights": {"method": "lma"}}, "weights.method: expected 'lima' or 'none', found 'lma'"),
        ({"predict": {"pdf": "huge"}}, "predict.pdf: expected 'none', 'compact' or 'full', found 'huge'"),
    ],
)
def test_a_wrong_setting_is_named(values: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(Config, values, "config.yaml")
    assert message in str(error.value)


@pytest.mark.parametrize("null", [None, "null"])
def test_null_takes_out_an_entry_or_stands_for_none(null: object) -> None:
    """The text is what Snakemake makes of it in `--config 'models={knn: null}'`."""
    settings = parse(
        Config,
        {"models": {"knn": null, "fcnn": {}}, "refresh": {"every": null}, "gates": {"metrics": {"crps": null}}},
        "c",
    )
    assert set(settings.models) == {"fcnn"}
    assert settings.refresh.every is None
    assert settings.gates.metrics == {}


def test_folders_may_name_the_user_s_home_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/ada")
    monkeypatch.setenv("DISK", "/disk")
    settings = parse(Config, {"data_dir": "~/sky", "results_dir": "$DISK/${DISK}x"}, "config.yaml")
    assert (settings.data_dir, settings.results_dir) == ("/people/ada/sky", "/disk//diskx")
    assert survey(files=["$DISK/a*.fits"]).files == ["/disk/a*.fits"]
    for wrong, message in {
        "$NOWHERE/x": "data_dir: $NOWHERE of '$NOWHERE/x' is not set in the environment",
        "~no_such_user/x": "there is no user of this name",
        "a{b}": "found braces in 'a{b}', which mark wildcards in Snakemake",
        "": "data_dir: expected text that is not empty",
    }.items():
        with pytest.raises(ConfigError) as error:
            parse(Config, {"data_dir": wrong}, "config.yaml")
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: 1\nseed: 2\n", "c.yaml: line 2: the key 'seed' is given twice, first in line 1; keep one"),
        (b"demo: {area: 1, 'area': 2}\n", "line 1: the key 'area' is given twice"),
        ("survey: é".encode("latin-1"), "line 1: found the byte 0xe9, which is no UTF-8 (Latin-1 text?)"),
        ("survey: demo".encode("utf-16"), "this is UTF-16 text or no text at all: save it as UTF-8"),
        (b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (98 + n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 9)) for n in range(8)
        ), "found more (aliases written out)"),
        (b"a: &a [*a]", "line 1: an alias holds itself"),
        (b"[" * 5000, "line 1: keys and lists are nested more than 20 deep"),
        (b"a:\n\tb: 1\n", "line 2: found a tab; indent with blanks"),
        (b"a: \x07\n", "line 1: found the control character U+0007"),
        (b"a: 1:30\n", "line 1: 1:30 is a number of base 60 in YAML"),
        (b"a: 010\n", "line 1: 010 is a number of base 8 in YAML"),
        (b"a: [1\nb: 2\n", "not YAML"),
        (b"{a: 1}: 2\n", "line 1: expected a key, found a list or keys and values"),
        (b"a: " + b"9" * 5000, "a value cannot be read"),
        (b"a: 1\n---\nb: 2\n", "not YAML"),
        (b"#" * 2_000_000, "expected a file of at most 1,000,000 bytes"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_looks_like_is_one_plain_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_yaml(tmp_path / "c.yaml", "c.yaml")
    text = str(error.value)
    assert message in text
    assert "\n" not in text and len(text) < 300


@pytest.mark.parametrize(
    "content", ["a: 1\n", "a: &x {b: 2}\nc: {<<: *x, d: 0.5, e: 2020-01-01, f: '010', g: 0}\n", "", "\ufeffa: é\n"]
)
def test_other_files_are_read_as_any_parser_reads_them(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.yaml").write_text(content, encoding="utf-8")
    assert read_yaml(tmp_path / "c.yaml", "c.yaml") == yaml.safe_load(content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ["u", "g", "u"]}, "band u is named twice"),
        ({"columns": {**SURVEY["columns"], "flux": "mag"}}, "expected a template with {band}"),
        ({"columns": {**SURVEY["columns"], "dec": None}}, "ra and dec are given together"),
        ({"cuts": {"bright": {"column": "mag_g", "mx": 20}}}, "cuts.bright.mx: unknown key; did you mean 'max'?"),
        ({"cuts": {"bright": {"column": "mag_g"}}}, "a cut needs min, max or equals"),
        (
            {"cuts": {"bright": {"column": "mag_g", "min": 24, "max": 18}}},
            "cuts.bright: min (24) is above max (18): no row could pass",
        ),
        ({"extinction": {"coefficients": {"u": 4.8, "g": 3.6}}}, "none for band r"),
        ({"extinction": {"coefficients": {"u": 4.8, "g": 3.6, "r": 2.7}}}, "from either columns.ebv or extinction.map"),
        ({"filters": {"y": "lsst2023-y"}}, "filters: y is not among the bands"),
        ({"reference_band": "i"}, "is none of the bands u, g, r"),
        ({"photometry": "luptitude"}, "needs softening for every band"),
        ({"redshift_grid": {"min": 2, "max": 1}}, "must be above min"),
        ({"odds_width": 0.003}, "odds_width: PDFs on a grid with steps of 0.01 in redshift do not say"),
        ({"odds_width": 0}, "odds_width: expected above 0"),
        ({"labels": [{"name": "a"}, {"name": "a"}]}, "a name of its own"),
        ({"files": []}, "give either files"),
        (
            {"columns": {**SURVEY["columns"], "extra": ["ra", "size"]}},
            "columns.extra: ra is named twice, or is a column",
        ),
        ({"columns": {**SURVEY["columns"], "extra": ["mag_g"]}}, "columns.extra: mag_g is named twice, or is a column"),
        ({"columns": {**SURVEY["columns"], "extra": ["size", "size"]}}, "columns.extra: size is named twice"),
    ],
)
def test_a_wrong_survey_definition_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        survey(**changes)
    assert message in str(error.value)
    assert str(error.value).startswith("surveys/mine.yaml: ")


def test_a_radius_beyond_the_margin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SURVEY))
    with pytest.raises(ConfigError, match=r"radius_arcsec \(20\) is beyond crossmatch.margin_arcsec \(10\)"):
        load({"survey": "mine", "crossmatch": {"radius_arcsec": 20}}, tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**SURVEY, "labels": [{"name": "a", "radius_arcsec": 30}]}))
    with pytest.raises(ConfigError, match=r"labels: a: radius_arcsec \(30\) is beyond"):
        load({"survey": "mine"}, tmp_path)


def test_an_unknown_survey_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "cosmos.yaml").write_text(yaml.safe_dump(SURVEY))
    with pytest.raises(ConfigError, match="did you mean 'cosmos'"):
        load({"survey": "cosmoss"}, tmp_path)


def test_column_templates_and_overrides() -> None:
    mine = survey(columns={**SURVEY["columns"], "overrides": {"flux_g": "gmag"}})
    assert mine.column_of("flux", "u") == "mag_u"
    assert mine.column_of("flux", "g") == "gmag"
    assert mine.column_of("error", "g") == "err_g"
    assert survey(columns={**SURVEY["columns"], "error": None}).column_of("error", "u") is None
    without = survey(columns={**SURVEY["columns"], "overrides": {"flux_u": None, "error_g": None}})
    assert without.column_of("flux", "u") is without.column_of("error", "u") is without.column_of("error", "g") is None
    assert without.column_of("flux", "g") == "mag_g"


def test_the_reference_band_has_a_column() -> None:
    columns = {**SURVEY["columns"], "overrides": {"flux_g": None}}
    with pytest.raises(
        ConfigError, match="g is the reference band and must have a column; name another reference_band"
    ):
        survey(columns=columns, reference_band="g")


def test_the_committed_schemas_are_current(root: Path) -> None:
    import json

    assert json.loads((root / "docs/schema/config.json").read_text()) == config.json_schema()
    assert json.loads((root / "docs/schema/survey.json").read_text()) == config.survey_json_schema()


def test_files_that_the_settings_of_a_model_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZMILL_SEDS", str(tmp_path))
    for name in ("a.parquet", "b.fits"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder").mkdir()
    given = {
        "seds": ["a.parquet", "$ZMILL_SEDS/b.fits", "none", "x" * 1000],
        "deep": {"k": ["folder", 3, None, "a.parquet"]},
    }
    assert ModelSettings.model_validate(given).files == sorted([str(tmp_path / "b.fits"), "a.parquet"])
