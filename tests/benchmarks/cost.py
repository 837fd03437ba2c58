"""What a survey of any size costs: `python tests/benchmarks/cost.py [--rows N N …] [--gpu-rows-per-s N]`.

Core-hours, hours on a given number of cores and bytes, from what `import.py`, `clean.py` and `predict.py` have measured on this machine
(`results/benchmarks/*.json`; run them first). Every stage goes over the rows once and every partition on its own, so that cost grows as
the rows do; `memory.py` shows that memory does not. What does not grow with the rows (labels, training, starting jobs) is left out.

GPU-hours are given where the rate of one GPU is: `rows_per_s_pdf` of `predict.py` run on a machine that has one.
"""

from __future__ import annotations

import argparse

from bench import RESULTS, table

from zmill.catalog.files import read_json


def measured(name: str) -> dict[str, float]:
    """The figures of a benchmark."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise SystemExit(f"{path}: missing: run python tests/benchmarks/{name}.py first")
    found: dict[str, float] = read_json(path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**7, 10**8, 10**9, 10**10, 37 * 10**9])
    parser.add_argument("--cores", type=int, default=128, help="of which the hours are said")
    parser.add_argument("--gpu-rows-per-s", type=float, help="of one GPU, with compact PDFs")
    options = parser.parse_args()
    imported, cleaned, predicted = (measured(name) for name in ("import", "clean", "predict"))
    core_us = {
        "import": 1e6 * imported["threads"] * imported["seconds"] / imported["rows"],
        "clean + impute": 1e6 / cleaned["rows_per_s"],
        "predict, points": predicted["cpu_us_per_row_points_ours"],
        "predict, compact PDFs": predicted["cpu_us_per_row_pdf_ours"],
    }
    stored = {
        "import": cleaned["bytes_per_row_survey"],
        "clean + impute": predicted["bytes_per_row_clean"],
        "predict, points": predicted["bytes_per_row_photoz"],
        "predict, compact PDFs": predicted["bytes_per_row_photoz"] + predicted["bytes_per_row_pdf"],
    }
    table(
        ["stage", "µs of a core per row", "rows/s per core", "bytes written per row"],
        [[stage, us, 1e6 / us, stored[stage]] for stage, us in core_us.items()],
    )
    print()
    whole = [stage for stage in core_us if stage != "predict, points"]
    head = ["rows", "core-hours", f"hours on {options.cores} cores", "TB written"]
    if options.gpu_rows_per_s:
        head += ["core-hours without prediction", "GPU-hours of prediction"]
    lines = []
    for rows in options.rows:
        hours = rows * sum(core_us[stage] for stage in whole) / 3.6e9
        line = [f"{rows:.2g}", hours, hours / options.cores, rows * sum(stored[stage] for stage in whole) / 1e12]
        if options.gpu_rows_per_s:
            before = rows * sum(core_us[stage] for stage in whole[:-1]) / 3.6e9
            line += [before, rows / options.gpu_rows_per_s / 3600]
        lines.append(line)
    table(head, lines)


if __name__ == "__main__":
    main()
