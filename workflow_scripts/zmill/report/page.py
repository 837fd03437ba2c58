"""The page of the report: results at the top, then accuracy, processing and provenance."""

from __future__ import annotations

import base64
import hashlib
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from zmill.catalog.files import atomic_write
from zmill.inputs.registry import kind
from zmill.redact import redact
from zmill.release.provenance import public
from zmill.report.accuracy import (
    Tested,
    accuracy_section,
    headline,
    kinds_section,
    leaderboard_section,
    pdf_section,
)
from zmill.report.blocks import Block, Section
from zmill.report.nights import nights_section
from zmill.report.reliability import reliability_section
from zmill.report.retrieved import retrieved_section
from zmill.report.river import (
    distribution_section,
    provenance_section,
    removed_section,
    rows_section,
    sample_section,
    time_section,
)
from zmill.report.searches import searches_section
from zmill.report.sources import Sources
from zmill.report.stamps import stamps_section
from zmill.workflow.warning import collect

BINS = 50
"""Bins of n(z) over the redshift grid."""


def build(results: Path, name: str, config: dict[str, Any], survey: dict[str, Any], out: Path) -> None:
    """Write the report of a survey.

    Parameters
    ----------
    results : the survey's folder of results.
    name : the survey's name.
    config, survey : the validated configuration and survey definition, as JSON-ready dictionaries; shown without the
        absolute paths.
    out : the HTML file, which refers to nothing outside itself.
    """
    config, survey = public([config, survey], config.get("data_dir"))
    sources = Sources(results)
    grid = survey["redshift_grid"]
    edges = np.linspace(grid["min"], grid["max"], BINS + 1)
    metric = config["select"]["metric"]
    measured = sources.metrics(sources.chosen)
    split, brightness = measured["splits"]["test"], measured["brightness"]
    first = next(iter(sources.models()[sources.chosen]["inputs"]))
    tested = Tested(sources.predictions(sources.chosen, "test"), grid["min"], grid["max"], brightness)
    predicted = sources.predicted(edges) if sources.has_catalog else None
    sections = [
        accuracy_section(tested),
        pdf_section(sources.pits("test"), split, sources.models(), brightness),
        reliability_section(split["reliability"]) if "reliability" in split else None,
        stamps_section(sources, survey["sections"].get("image", {}).get("bands", [])),
        distribution_section(sources, tested, predicted, edges),
        leaderboard_section(sources, metric),
        searches_section(sources),
        kinds_section(sources, split, kind(first).parts, metric),
        rows_section(predicted),
        retrieved_section(sources),
        nights_section(sources),
        removed_section(sources),
        sample_section(sources),
        time_section(sources),
        provenance_section(sources, config, survey),
    ]
    head = {
        "survey": name,
        "description": survey.get("description", ""),
        "model": sources.chosen,
        "rows": predicted.rows if predicted else None,
        "test_rows": tested.table.num_rows,
        "metric": metric,
        "cards": headline(split),
        "warnings": [(stage, _without_places(text)) for stage, text in collect(results)],
    }
    page = render(head, [section for section in sections if section])
    with atomic_write(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


_PLACE = re.compile(r"(?<![\w./:])/(?:[^/\s:,;'\"]+/)+(?=[^/\s:,;'\"])")
"""The folders of an absolute path; text after `://` is no path."""


def _without_places(text: str) -> str:
    """The text with absolute paths cut to their last name."""
    return redact(_PLACE.sub("…/", text))


def render(head: dict[str, Any], sections: list[Section]) -> str:
    """HTML of a page. All text that is not markup is escaped; only the page's own script may run."""
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["groupby_runs"] = _runs
    script = (here / "page.js.j2").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        head=head,
        sections=sections,
        style=Markup((here / "page.css.j2").read_text(encoding="utf-8").strip()),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _runs(blocks: list[Block]) -> list[list[Block]]:
    """Groups of consecutive blocks of one kind; figures are placed in a row."""
    return [list(group) for _, group in groupby(blocks, key=lambda block: block.kind)]
