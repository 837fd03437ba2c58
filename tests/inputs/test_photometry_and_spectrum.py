"""A survey whose rows have photometry and a spectrum: from its file to a photo-z of every row, by a model over both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models import toy_both
from zmill.catalog import hats
from zmill.clean.partition import Recipe
from zmill.clean.shard import clean_shard, finish_catalog
from zmill.columns import lists
from zmill.config import Partitions, Predict
from zmill.inputs import registry
from zmill.inputs.base import NO_REDSHIFT, Joint, ModelContext
from zmill.inputs.spectrum.batch import NO_GOOD_PIXEL
from zmill.models.registry import model_class
from zmill.predict.shard import predict_shard
from zmill.survey.check import check_columns
from zmill.survey.importer import import_survey
from zmill.survey_definition import Survey
from zmill.training import store
from zmill.training.trained import fit_and_calibrate, refit

ROWS, TYPE = 1200, "spectrum_photometry"
SURVEY = Survey.model_validate(
    {
        "files": ["both.parquet"],
        "columns": {"object_id": "id", "ra": "ra", "dec": "dec", "flux": "mag_{band}", "error": "err_{band}"},
        "bands": ["g", "r", "i"],
        "spectrum": {
            "flux": "flux",
            "ivar": "ivar",
            "wavelength": {
                "start": 3.6,
                "step": 3e-3,
                "pixels": 120,
                "scale": "log10",
                "unit": "angstrom",
                "air": False,
            },
        },
        "redshift_grid": {"min": 0, "max": 0.6, "points": 121},
        "odds_width": 0.05,
    }
)


def write(path: Path) -> np.ndarray:
    """Rows of both; every tenth has no spectrum, every tenth no magnitudes, one neither. Returns their redshifts."""
    rows = toy_both.labelled(ROWS, 1, 0.3)
    spectra, mag = rows.batch.kinds["spectrum"], rows.batch.kinds["photometry"].mag.copy()
    ivar, number, rng = spectra.ivar.copy(), np.arange(ROWS), np.random.default_rng(1)
    ivar[(number % 10 == 3) | (number == 4)] = 0
    mag[number % 10 == 4] = np.nan
    table = {"id": number, "ra": rng.uniform(10, 12, ROWS), "dec": rng.uniform(-1, 1, ROWS)}
    table |= {f"mag_{band}": mag[:, place] for place, band in enumerate("gri")}
    table |= {f"err_{band}": np.full(ROWS, 0.05) for band in "gri"}
    pq.write_table(pa.table({**table, "flux": lists(spectra.flux), "ivar": lists(ivar)}), path)
    return rows.z


@pytest.mark.filterwarnings("ignore")
def test_every_row_has_a_photoz_of_what_it_has(tmp_path: Path) -> None:
    z = write(tmp_path / "both.parquet")
    check_columns([tmp_path / "both.parquet"], SURVEY)
    cls = model_class(TYPE)
    registry.check_inputs(SURVEY, {TYPE: cls.inputs}, "surveys/both.yaml")
    import_survey(
        [tmp_path / "both.parquet"], SURVEY, Partitions(max_rows=400), tmp_path / "survey", tmp_path / "bad.parquet"
    )
    partitions = hats.partitions(tmp_path / "survey")
    clean_shard(
        tmp_path / "survey",
        tmp_path / "clean",
        partitions,
        Recipe(tuple(registry.of_survey(SURVEY)), {}, {}),
        tmp_path / "p.json",
    )
    finish_catalog(tmp_path / "survey", tmp_path / "clean", "both")
    rows = pa.concat_tables([hats.read_columns(tmp_path / "clean", one) for one in partitions])
    number = rows["object_id"].to_numpy()
    sample = rows.append_column("redshift", pa.array(z[number])).append_column("weight", pa.array(np.ones(ROWS)))
    context = ModelContext(registry.from_json(registry.settings_of(SURVEY), cls.inputs), toy_both.GRID, seed=1)
    drawn = np.random.default_rng(2).permutation(ROWS)
    parts = [context.labelled(sample.take(pa.array(some))) for some in np.split(drawn, [700, 850, 1000])[:3]]
    assert isinstance(parts[0].batch, Joint)
    quick = {
        "spectrum": {**cls.quick["spectrum"], "epochs": 8, "batch": 32},
        "photometry": {**cls.quick["photometry"], "synthetic_galaxies": 0},
    }
    settings = cls.Settings.model_validate(quick)
    trained = fit_and_calibrate(
        TYPE, TYPE, settings, context, *parts, torch.device("cpu"), lambda line: None, odds_width=SURVEY.odds_width
    )
    refit(trained, parts[0], lambda line: None)
    store.save(tmp_path / "model", trained)
    predict_shard(tmp_path, tmp_path / "model", 0, partitions, registry.of_survey(SURVEY), Predict(), threads=1)
    photoz = pa.concat_tables([hats.read_columns(tmp_path / "photoz", one) for one in partitions])
    assert photoz["object_id"].equals(rows["object_id"])
    assert photoz.schema.field("odds").metadata == {b"width": b"0.05"}
    column = {name: photoz[name].to_numpy() for name in ("z_median", "odds", "flags", "z_std")}
    assert all(np.isfinite(values).all() for values in column.values())
    test = np.isin(number, drawn[1000:])
    error = np.abs(column["z_median"] - z[number]) / (1 + z[number])
    lacks = {"spectrum": number % 10 == 3, "photometry": number % 10 == 4, "nothing": number == 4}
    complete = ~lacks["spectrum"] & ~lacks["photometry"]
    assert np.median(error[test & complete]) < 0.03
    assert np.median(error[lacks["spectrum"]]) < 0.08 and np.median(error[lacks["photometry"]]) < 0.08
    assert ((column["flags"] & NO_GOOD_PIXEL > 0) == (lacks["spectrum"] | lacks["nothing"])).all()
    assert column["flags"][lacks["nothing"]] & NO_REDSHIFT
    assert column["odds"][complete].mean() > column["odds"][lacks["nothing"]][0]
