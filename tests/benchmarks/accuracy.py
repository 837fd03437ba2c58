"""Accuracy beside RAIL's estimators and published figures, on the same test rows and by the same metrics.

    python tests/benchmarks/accuracy.py --data FOLDER [--surveys lsst_dc2 zcosmos …] [--results FOLDER] [--peers ENV] [--all]

For each survey the leaderboard that `snakemake evaluate` wrote is read; where there is none, the workflow is run with the models
of config.yaml. Ours is the model that validation rows chose. RAIL's estimators get the rows of `sample/`, twice: the training
rows alone, and with the validation and calibration rows (`+`), of which RAIL has no use of its own. Their densities are
taken on the survey's redshift grid and judged by zmill.metrics, as ours are: median of the density for the scatter (of the
mode in brackets) and the outliers (of z_best in brackets), mean for rms. Extremely randomised trees on magnitudes and colors (scikit-learn, untuned) stand for a point
estimate that takes a minute to write.

Prints a Markdown table per survey and writes `<survey>_<metric>` of the chosen model, and `<survey>_<peer>_<metric>`.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import DATA, ROOT, context_of, joined, read, report
from peers import LEARNERS, rail, suffix
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor

from zmill import metrics
from zmill.inputs.base import LabelledBatch, ModelContext
from zmill.inputs.photometry.features import Columns
from zmill.pdf import points
from zmill.pdf.scores import pdf_scores

SURVEYS = ("lsst_dc2", "sdss_edr", "zcosmos", "demo")
WRITTEN = {
    "cde_loss": "{:.2f}",
    "crps": "{:.4f}",
    "sigma_iqr": "{:.4f}",
    "eta_015": "{:.2%}",
    "pit_ks": "{:.3f}",
    "sigma_nmad": "{:.4f}",
    "rms": "{:.4f}",
}
METRICS = tuple(WRITTEN)
BESIDE = {"sigma_iqr": "z_mode", "eta_015": "z_best"}
"""Estimates that are made for a metric: it is given of them as well, in brackets."""
PUBLISHED = {
    "sdss_edr": "ANNz, rms 0.023 (Collister & Lahav 2004: SDSS DR1, 0 < z < 0.7, other and more rows of the same kind)",
    "lsst_dc2": "no publication has these rows; Schmidt et al. 2020 on DC1: FlexZBoost sigma_iqr 0.0154, cde_loss -10.6",
}
Board = dict[str, Any]


def evaluated(survey: str, data: Path, results: Path) -> Path:
    """The survey's folder of results, with a leaderboard."""
    folder = results / survey
    if not (folder / "evaluation" / "leaderboard.csv").is_file():
        command = [sys.executable, "-m", "snakemake", "--cores", "all", "evaluate", "--config", f"survey={survey}"]
        found = subprocess.run([*command, f"data_dir={data}", f"results_dir={results}"], cwd=ROOT, check=False)
        if found.returncode:
            raise SystemExit(f"snakemake evaluate failed for {survey}: see above, or leave it out of --surveys")
    return folder


def boards(folder: Path, every: bool) -> dict[str, Board]:
    """The test metrics of the chosen model, first, and of the others if wanted."""
    with (folder / "evaluation" / "leaderboard.csv").open(encoding="utf-8") as file:
        names = list(dict.fromkeys(row["model"] for row in csv.DictReader(file)))
    chosen = json.loads((folder / "evaluation" / "best.json").read_text(encoding="utf-8"))["model"]
    found = {}
    for name in dict.fromkeys([chosen, *names] if every else [chosen]):
        about = json.loads((folder / "evaluation" / name / "metrics.json").read_text(encoding="utf-8"))
        test = about["splits"]["test"]
        found[name] = test["board"] | {point: test["points"][point] for point in BESIDE.values()}
    return found


def judge(density: Tensor, rows: LabelledBatch, context: ModelContext) -> Board:
    """The metrics of densities on labelled rows, as the leaderboard has them."""
    found = {name: value.numpy() for name, value in points.summarize(density, context.grid).items()}
    board: Board = metrics.point_metrics(found["z_median"], rows.z)
    mean = metrics.point_metrics(found["z_mean"], rows.z)
    board |= {name: mean[name] for name in metrics.ON_REDSHIFT}
    board |= {point: metrics.point_metrics(found[point], rows.z) for point in BESIDE.values()}
    return board | metrics.pdf_metrics(pdf_scores(density, context.grid, rows.z))


def extra_trees(train: LabelledBatch, test: LabelledBatch) -> Board:
    """Point estimates alone."""
    columns = Columns.fit(train.batch, (), colors=True)
    forest = ExtraTreesRegressor(300, min_samples_leaf=2, random_state=1)
    forest.fit(columns(train.batch).numpy(), train.z)
    return metrics.point_metrics(forest.predict(columns(test.batch).numpy()), test.z)


def peers_of(
    environment: Path | None, estimators: list[str], sample: dict[str, LabelledBatch], context: ModelContext
) -> dict[str, Board]:
    """Every peer's metrics on the test rows."""
    every = joined(sample["train"], sample["valid"], sample["calib"])
    found = {
        "extra_trees": extra_trees(sample["train"], sample["test"]),
        "extra_trees+": extra_trees(every, sample["test"]),
    }
    if environment:
        # RAIL has the filter curves of LSST alone
        names = [name for name in estimators if name != "bpz" or suffix(context)]
        for name, variant in [
            (name, variant) for name in names for variant in ("", "+") if variant or name in LEARNERS
        ]:
            answer = rail(environment, name, every if variant else sample["train"], sample["test"], context)
            assert answer.density is not None
            cost = answer.inform["seconds"], answer.estimate["seconds"]
            print(f"rail {name}{variant}: informed in {cost[0]:.1f} s, applied in {cost[1]:.1f} s", flush=True)
            found[f"rail_{name}{variant}"] = judge(answer.density, sample["test"], context)
    return found


def show(survey: str, found: dict[str, Board], sample: dict[str, LabelledBatch]) -> None:
    """A Markdown table of the metrics."""
    rows = ", ".join(f"{len(part):,} {split}" for split, part in sample.items())
    print(f"\n{survey}: {rows} rows\n\n| | " + " | ".join(METRICS) + " |\n|" + "---|" * (len(METRICS) + 1))
    for name, board in found.items():
        cells = []
        for metric in METRICS:
            shown = WRITTEN[metric]
            cell = shown.format(board[metric]) if metric in board else ""
            if BESIDE.get(metric) in board:
                cell += f" ({shown.format(board[BESIDE[metric]][metric])})"
            cells.append(cell.replace("-", "−"))
        print(f"| `{name}` | " + " | ".join(cells) + " |")
    if survey in PUBLISHED:
        print(f"\npublished: {PUBLISHED[survey]}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=DATA, help="data_dir of the surveys")
    options.add_argument("--surveys", nargs="+", default=list(SURVEYS))
    options.add_argument("--results", type=Path, default=ROOT / "results")
    options.add_argument("--peers", type=Path, help="environment of the peers, made by peers.sh")
    options.add_argument(
        "--all", action="store_true", help="print every model of the leaderboard, not the chosen one alone"
    )
    options.add_argument("--estimators", nargs="+", default=[*LEARNERS, "bpz", "trainz"], help="of RAIL")
    arguments = options.parse_args()
    figures: dict[str, float | str | None] = {}
    for survey in arguments.surveys:
        folder = evaluated(survey, arguments.data.resolve(), arguments.results.resolve())
        context = context_of(survey)
        sample = read(folder / "sample", context)
        ours = boards(folder, arguments.all)
        peers = peers_of(arguments.peers, arguments.estimators, sample, context)
        show(survey, ours | peers, sample)
        chosen = next(iter(ours))
        figures[f"{survey}_model"] = chosen
        figures |= {f"{survey}_{metric}": ours[chosen][metric] for metric in METRICS}
        for name, board in peers.items():
            label = name.replace("+", "_all_rows")
            figures |= {f"{survey}_{label}_{metric}": board[metric] for metric in METRICS if metric in board}
    report("accuracy", figures)


if __name__ == "__main__":
    main()
