"""Nearest neighbors beside RAIL's: `python tests/benchmarks/knn.py [--rows N] [--peers ENV]`.

Both are fitted on the same 7,724 training rows of LSST DC2 and give densities on 301 points and their modes for the same test
rows, from photometry in memory, on one thread each. Processor seconds are compared, the cheapest of several runs; ours are measured
before and after RAIL's.

`rows_per_s`         ours, default settings
`rows_per_s_colors`  ours with `colors: true, weights: distance`
`rows_per_s_rail`    RAIL's KNearNeigh, `estimate` alone: it computes the densities on the points for the modes, and keeps mixtures
`ratio_rail`         rows_per_s / rows_per_s_rail
`ratio_rail_grid`    the same when RAIL's mixtures are turned into densities on the points
"""

from __future__ import annotations

from functools import partial

import torch
from bench import context_of, cpu_seconds, first, lsst_dc2, parser, report
from peers import rail

from zmill.inputs.photometry.batch import Photometry
from zmill.models.knn import KNNSettings, Neighbors
from zmill.pdf import points

BATCH = 4096


def predict(model: Neighbors, rows: Photometry) -> None:
    """Densities and modes."""
    for start in range(0, len(rows), BATCH):
        points.mode(model.predict(rows[start : start + BATCH]), model.context.grid)


def ours(models: dict[str, Neighbors], rows: Photometry, repeats: int) -> dict[str, float]:
    """Processor seconds of each model for all rows."""
    return {name: cpu_seconds(partial(predict, model, rows), repeats) for name, model in models.items()}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=10_000, help="test rows; 10,000 is what RAIL works on at a time")
    options.add_argument("--repeats", type=int, default=5)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    sample, context = lsst_dc2(arguments.data), context_of("lsst_dc2")
    train, test = sample["train"], first(sample["test"], arguments.rows)
    figures: dict[str, float] = {"rows": len(test), "training_rows": len(train)}
    models = {
        "": Neighbors(KNNSettings(), context),
        "_colors": Neighbors(KNNSettings(colors=True, weights="distance"), context),
    }
    for name, model in models.items():
        model.fit(train, sample["valid"], torch.device("cpu"), lambda line: None)
        figures[f"k{name}"] = model.k
    cost = ours(models, test.batch, arguments.repeats)
    if arguments.peers:
        answer = rail(arguments.peers, "knn", train, test, context, repeats=arguments.repeats)
        again = ours(models, test.batch, arguments.repeats)
        cost = {name: min(cost[name], again[name]) for name in cost}
    figures |= {f"rows_per_s{name}": len(test) / cost[name] for name in models}
    if arguments.peers:
        seconds, on_grid = answer.estimate["seconds"], answer.estimate["grid_seconds"]
        figures["rows_per_s_rail"] = len(test) / seconds
        figures["ratio_rail"] = seconds / cost[""]
        figures["ratio_rail_grid"] = (seconds + on_grid) / cost[""]
        figures["peak_gib_rail"] = answer.estimate["peak_gib"]
    report("knn", figures)


if __name__ == "__main__":
    main()
