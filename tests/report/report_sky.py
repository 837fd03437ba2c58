"""A folder of results with realistic numbers, as the stages before the report leave it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from zmill.catalog import hats
from zmill.catalog.files import write_json
from zmill.catalog.hats import Partition
from zmill.config import Search, parse
from zmill.pdf import arrow, compact
from zmill.pdf.calibration import Calibration
from zmill.pdf.conformal import Conformal
from zmill.pdf.grid import Grid
from zmill.pdf.odds import Odds
from zmill.sample.weights import SurveyDensity, compare
from zmill.training import evaluate, missing_data, selection
from zmill.training.reliability import reliability
from zmill.tune import result

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>$\\frac{1}{2}$"
ENDS = {"z_c025": -3.5, "z_c160": -1.2, "z_c840": 1.2, "z_c975": 3.5}
INTERVALS = Conformal((21.0, 23.0), ((0.6, 0.9), (0.7, 0.95), (0.8, 0.97), (1.0, 1.0)))
BANDS = ("u", "g", "r", "i", "z", "y")
GRID = Grid(0.0, 3.0, 301)
CONFIG: dict[str, Any] = {"seed": 1, "select": {"metric": "crps"}, "predict": {"pdf": "compact"}}
SURVEY: dict[str, Any] = {
    "description": f"six bands to i = 25 & deeper {HOSTILE}",
    "bands": list(BANDS),
    "reference_band": "i",
    "redshift_grid": {"min": 0.0, "max": 3.0, "points": 301},
    "sections": {},
}


def redshifts(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """z_spec, z_phot, magnitude and width of n rows."""
    random = np.random.default_rng(seed)
    magnitude = 24.5 - random.exponential(1.6, n)
    z = np.clip(random.gamma(3, 0.12 + 0.03 * (magnitude - 17).clip(0), n), 0.005, 2.9)
    width = 0.015 * (1 + z) * 10 ** (0.13 * (magnitude - 20).clip(0))
    phot = z + width * random.standard_t(4, n)
    lost = random.random(n) < 0.02
    phot[lost] = random.uniform(0, 2.5, lost.sum())
    return z, np.clip(phot, 0, 3), magnitude, width


def predictions(n: int = 3000, seed: int = 1) -> pa.Table:
    """Predictions of the valid and test rows of a model, as `zmill.training.evaluate` writes them."""
    z, phot, magnitude, width = redshifts(n, seed)
    random = np.random.default_rng(seed + 1)
    zeros = np.zeros(n, np.int32)
    missing = (random.random(n) < 0.2).astype(np.int32)
    return pa.table(
        {
            "object_id": np.arange(n),
            "split": np.where(np.arange(n) < n // 4, "valid", "test"),
            "redshift": z,
            **{f"z_{name}": phot.astype(np.float32) for name in ("mode", "best", "mean", "median")},
            "z_std": width.astype(np.float32),
            **{name: (phot + k * width).astype(np.float32) for name, k in ENDS.items()},
            "odds": (1 - 10 ** (0.25 * (magnitude - 24.6)) * random.uniform(0.2, 1, n)).clip(0, 1).astype(np.float32),
            "ood": random.random(n) < 0.03,
            "pit": random.beta(1.05 + 0.2 * seed, 1.0, n),
            "crps": width * seed,
            "log_score": -np.log(width),
            "cde_loss": -0.1 / width,
            "brightness": magnitude.astype(np.float32),
            "undetected": missing,
            "unobserved": zeros,
            "imputed": missing,
            "weight": 10 ** (0.2 * (magnitude - magnitude.mean())),
            "block": random.integers(0, 60, n),
        }
    )


def metrics_of(model: str, table: pa.Table) -> dict[str, Any]:
    """`metrics.json` of predictions."""
    edges = evaluate.bin_edges(table, GRID)
    splits = {
        split: evaluate.evaluate_split(rows, ("undetected", "unobserved", "imputed"), BANDS, edges, 1)
        | {"stated_coverage": evaluate.jsonable(evaluate.stated_coverage(rows, INTERVALS))}
        | {"reliability": evaluate.jsonable(reliability(rows, Odds(0.05)))}
        for split in ("valid", "test")
        for rows in [table.filter(pa.compute.equal(table["split"], split))]
    }
    for split in splits.values():
        split["made"] = [{"pattern": "without u", "n": 900, "board": split["board"]}]
    return {
        "model": model,
        "type": model,
        "seed": 1,
        "brightness": "i (AB magnitude)",
        "model_hash": "0f",
        "train_seconds": 3.2,
        "rows_per_s": 12e4,
        "splits": splits,
    }


def search(trials: int = 30) -> dict[str, Any]:
    """`search.json` of a search for three settings of `fcnn`."""
    random = np.random.default_rng(4)
    space = {
        "lr": {"low": 1e-5, "high": 1e-1, "log": True},
        "scaling": ["none", "standard"],
        "hidden": [[64], [128, 64]],
    }
    outcomes = []
    for number in range(trials):
        lr, state = 10 ** random.uniform(-5, -1), "pruned" if number % 5 == 4 else "complete"
        values = {
            "lr": lr,
            "scaling": str(random.choice(["none", "standard"])),
            "hidden": [[64], [128, 64]][number % 2],
        }
        score = 0.03 + 0.004 * (np.log10(lr) + 3) ** 2 + 0.01 * (values["scaling"] == "none")
        outcome = {"score": score, "board": {"crps": score, "mse": 0.2}} if state == "complete" else {"why": HOSTILE}
        ended = f"2026-01-01T00:00:{number:02d}+00:00"
        outcomes.append(
            {
                "study": "one",
                "number": number,
                "state": state,
                "values": values,
                "seconds": 40.0,
                "ended": ended,
                **outcome,
            }
        )
    return result.describe("fcnn", "fcnn", {}, parse(Search, {"space": space}, ""), "crps", 1, outcomes)


def weights() -> dict[str, Any]:
    """`sample/weights.json` of the splits, on the reference magnitude and a color."""
    random = np.random.default_rng(7)
    survey = np.stack([25 - random.exponential(1, 4000), random.normal(0.5, 0.3, 4000)], axis=1)
    labelled = survey[random.random(4000) < 0.1 + 0.8 * (survey[:, 0] < 23)]
    weight = SurveyDensity(survey).weigh(labelled, 10, 20)
    told = {"rows": len(labelled), "effective_rows": 512.3, "largest": 6.25, "clipped": 0}
    return {
        "method": "lima",
        "neighbors": 10,
        "clip": 20.0,
        "rows": {"survey": 20_000, "read": 20_000, "wanted": 19_000, "drawn": 4000},
        "far": 0.0625,
        "splits": dict.fromkeys(("train", "valid", "calib", "test"), told),
        "axes": compare(labelled, weight, survey, ["i", "u-g"]),
    }


def catalog(results: Path, rows: int) -> None:
    """`photoz/` and `pdf/` of two partitions."""
    for number, partition in enumerate([Partition(2, 40), Partition(2, 41)]):
        z, phot, _, width = redshifts(rows // 2, 10 + number)
        low, high = partition.interval()
        random = np.random.default_rng(number)
        position = {"_healpix_29": np.sort(random.integers(low, high, len(z))), "object_id": np.arange(len(z))}
        bits = np.where(random.random(len(z)) < 0.3, 2 | 4, 0) | np.where(random.random(len(z)) < 0.02, 16, 0)
        points = pa.table({**position, "z_median": phot.astype(np.float32), "flags": bits.astype(np.int32)})
        with hats.write_partition(results / "photoz", partition, points.schema) as out:
            out.write(points)
        x = torch.as_tensor(GRID.z, dtype=torch.float32)
        center, sigma = torch.as_tensor(phot, dtype=torch.float32), torch.as_tensor(2 * width, dtype=torch.float32)
        density = GRID.normalize(torch.exp(-0.5 * ((x - center[:, None]) / sigma[:, None]) ** 2))
        schema = pa.schema(
            [("_healpix_29", pa.int64()), ("object_id", pa.int64()), arrow.field("compact", GRID)],
            metadata=arrow.metadata("compact", GRID),
        )
        pdfs = arrow.column("compact", compact.encode(density, GRID))
        with hats.write_partition(results / "pdf", partition, schema) as out:
            out.write(pa.table({**position, "pdf": pdfs}, schema=schema))
    for name in ("photoz", "pdf"):
        hats.finish(results / name, name, [Partition(2, 40), Partition(2, 41)])


def fill(results: Path, tables_only: bool = False, rows: int = 20_000) -> Path:
    """Everything that the report reads; of a survey without positions if `tables_only`."""
    models = {"fcnn": predictions(seed=1), "knn": predictions(seed=3)}
    measured = {name: metrics_of(name, table) for name, table in models.items()}
    for name, table in models.items():
        write_json(results / "evaluation" / name / "metrics.json", measured[name])
        pq.write_table(table, results / "evaluation" / name / "predictions.parquet")
    (results / "evaluation" / "leaderboard.csv").write_text(selection.leaderboard(measured, "crps"))
    (results / "evaluation" / "patterns.csv").write_text(missing_data.table(measured))
    write_json(results / "evaluation" / "best.json", selection.choose(measured, "crps"))
    epochs = np.arange(1, 31)
    history = [{"epoch": int(e), "loss": -1.5 + 2 / e, "score": 0.03 + 0.02 / e} for e in epochs]
    curve = [
        {"k": k, "width": 0.01, "crps": 0.04 + 0.02 / k + k / 5000, "rmse": 0.1 + 0.02 / k}
        for k in (3, 5, 9, 15, 31, 51)
    ]
    distilled = {"history": history[:20], "best_epoch": 18}
    fits = {"fcnn": {"history": history, "best_epoch": 30, "distilled": distilled}, "knn": {"curve": curve, "k": 9}}
    taken = {"fcnn": Calibration(0.75, (0.2, 0.5, 0.3)), "knn": Calibration()}
    for name, fit in fits.items():
        scores = {
            when: {
                "crps": crps,
                "log_score": 1.2,
                "cde_loss": -8.1,
                "pit_ks": ks,
                "coverage_68": 0.7,
                "pit_histogram": [25] * 20,
            }
            for when, crps, ks in (("before", 0.0512, 0.0832), ("after", 0.0487, 0.0311))
        }
        facts = {"fit": fit, "calibration": {"measured_on": "valid", **scores}}
        said = {"calibration": {**taken[name].state(), "conformal": INTERVALS.state()}, "facts": facts}
        write_json(
            results / "models" / name / "model.json", {**said, "inputs": {"photometry": {}}, "tensors_hash": "ab12"}
        )
    write_json(results / "tune" / "fcnn" / "search.json", search())
    splits = {
        name: {
            "rows": n,
            "redshift": {"min": 0.01, "q25": 0.2, "median": 0.4, "q75": 0.7, "max": 2.1},
            "label_source": {"sdss": n - 10, HOSTILE: 10},
        }
        for name, n in {"train": 12000, "valid": 2000, "calib": 2000, "test": 4000}.items()
    }
    steps = [
        {"step": "labelled", "rows": 21000},
        {"step": "ambiguous", "rows": 20300},
        {"step": "cut:mag_i", "rows": 20000},
    ]
    write_json(results / "sample" / "sample.json", {"steps": steps, "splits": splits})
    write_json(results / "split.json", {"steps": steps, "excluded": {"ambiguous": 700, "cut:mag_i": 300}})
    write_json(results / "imputation.json", {"learned": {"photometry": {"u-g": 1.2}}, "training_rows": 12000})
    for rule, seconds in {"train_model/fcnn": 93.2, "train_model/knn": 3.1, "evaluate_model/fcnn": 2.0}.items():
        path = results / "benchmarks" / f"{rule}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\tmax_vms\n{seconds}\t0:00:01\t512.5\t900\n")
    if tables_only:
        return results
    catalog(results, rows)
    write_json(results / "sample" / "weights.json", weights())
    random = np.random.default_rng(5)
    matches = {
        "separation_arcsec": random.rayleigh(0.15, 21000).astype(np.float32),
        "ambiguous": random.random(21000) < 0.03,
    }
    pq.write_table(pa.table(matches), results / "matches.parquet")
    write_json(results / "matches.json", {"survey_rows": rows, "spectra": 30000, "matched": 21000, "ambiguous": 700, "not_mutual": 55,
               "matched_by_source": {"sdss": 20900, HOSTILE: 100}})  # fmt: skip
    write_json(results / "specz" / "labels.json", {"entries": 40000, "objects": 30000,
               "rejected": {"low_quality": 9000, "outside": 1000},
               "sources": {"sdss": {"entries": 30000, "accepted": 25000, "rejected": {"low_quality": 5000}},
                           HOSTILE: {"entries": 10000, "accepted": 5000, "rejected": {"low_quality": 4000, "outside": 1000}}}})  # fmt: skip
    (results / "rejected").mkdir()
    bad = {
        "object_id": ["1", "2", "3"],
        "reason": ["duplicate_object_id", "duplicate_object_id", "position_not_finite"],
    }
    pq.write_table(pa.table(bad), results / "rejected" / "survey.parquet")
    write_json(results / "rejected" / "survey.json", {"duplicate_object_id": 2, "position_not_finite": 1})
    pq.write_table(pa.table({"reason": ["low_quality"] * 4}), results / "rejected" / "specz.parquet")
    pq.write_table(pa.table({"redshift": [0.1, 0.2]}), results / "rejected" / "specz_conflicts.parquet")
    return results
