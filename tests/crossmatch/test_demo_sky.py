"""Labels of the demo sky against its truth: the right galaxy, and the right redshift as far as the flags promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from zmill.config import Labels, Partitions, load_survey
from zmill.crossmatch.catalogs import crossmatch
from zmill.labels.build import build
from zmill.simulate import demo
from zmill.survey.importer import import_survey
from zmill.workflow.input_files import find

AREA = 0.4


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory, root: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Matches with the truth of their object and of their entry, and what matches.json says."""
    folder = tmp_path_factory.mktemp("sky")
    data, results = folder / "demo", folder / "results"
    for name in ("survey", "specz", "truth"):
        (data / name).mkdir(parents=True)
    demo.write(
        demo.simulate(3, area=AREA),
        tracts=[data / "survey" / f"part-{number}.parquet" for number in range(4)],
        sdss_file=data / "specz" / "sdss.fits",
        ned_file=data / "specz" / "ned.vot",
        deep_file=data / "specz" / "deep.csv",
        truth=[data / "truth" / "truth.parquet", data / "truth" / "specz.parquet"],
    )
    survey = load_survey("demo", root / "surveys")
    files = [Path(file) for file in find(survey, folder).survey]
    rejected = results / "rejected" / "survey.parquet"
    import_survey(files, survey, Partitions(max_rows=5_000), results / "survey", rejected, threads=1, data_dir=folder)
    build(survey.labels, Labels(), Partitions(), 1.0, folder, results)
    facts = crossmatch(results / "survey", results / "specz", results / "matches.parquet", results / "matches.json")
    matches = pq.read_table(results / "matches.parquet").to_pandas()
    objects = pq.read_table(data / "truth" / "truth.parquet").to_pandas().set_index("object_id")
    entries = pq.read_table(data / "truth" / "specz.parquet").to_pandas().set_index(["source", "entry"])
    behind = entries.loc[list(zip(matches.label_source, matches.specz_id, strict=True))]
    z = objects.loc[matches.object_id].z_true.to_numpy()
    return {
        "ambiguous": matches.ambiguous.to_numpy(),
        "right_object": behind.object_id.to_numpy() == matches.object_id.to_numpy(),
        "right_redshift": np.abs(matches.redshift.to_numpy() - z) <= 0.003 * (1 + z),
        "promised": behind.correct.to_numpy(),
    }, facts


def test_labels_belong_to_the_right_galaxy(sky) -> None:
    found, facts = sky
    clear = ~found["ambiguous"]
    assert clear.sum() > 1000
    assert found["right_object"][clear].mean() >= 0.995
    assert facts["not_mutual"] + facts["no_object_within_radius"] < 0.03 * facts["spectra"]


def test_wrong_redshifts_are_those_that_the_sources_themselves_have_wrong(sky) -> None:
    found, _ = sky
    used = ~found["ambiguous"] & found["right_object"]
    assert (found["right_redshift"][used] == found["promised"][used]).mean() >= 0.995
    assert found["right_redshift"][used].mean() >= 0.97
