"""The page at the contract: whole, self-contained, safe, and with what a reader looks for."""

from __future__ import annotations

import csv
import re
import shutil
import socket
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_sky import CONFIG, HOSTILE, SURVEY, fill

from zmill.catalog.files import read_json, write_json
from zmill.report.blocks import number, percent
from zmill.report.page import build
from zmill.report.sources import Sources

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Elements, attributes and texts of a page; refuses tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def built(results: Path, config: dict = CONFIG, survey: dict = SURVEY) -> str:
    build(results, "demo", config, survey, results / "report.html")
    return (results / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def html(results: Path) -> str:
    return built(results)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a survey of tables, whose evaluation has gaps and among whose files are those of a model taken out."""
    results = fill(tmp_path_factory.mktemp("tables"), tables_only=True)
    for folder in ("models", "tune"):
        shutil.copytree(results / folder / "fcnn", results / folder / "takenout")
    benchmarks = results / "benchmarks" / "train_model"
    shutil.copy(benchmarks / "fcnn.tsv", benchmarks / "takenout.tsv")
    before = [(one.rule, one.jobs) for one in Sources(results).work()]
    assert ("train_model", 2) in before
    (results / "tune/fcnn/search.json").unlink()
    path = results / "evaluation" / "fcnn" / "metrics.json"
    content = read_json(path)
    test = content["splits"]["test"]
    test["board"]["crps"] = None
    test["intervals"] |= {"blocks": 2, "metrics": {name: [None, None] for name in test["intervals"]["metrics"]}}
    write_json(path, content)
    rows = pq.read_table(results / "evaluation" / "fcnn" / "predictions.parquet")
    block = pa.array(np.arange(len(rows)) % 2)
    rows = rows.set_column(rows.schema.get_field_index("block"), "block", block)
    pq.write_table(rows, results / "evaluation" / "fcnn" / "predictions.parquet")
    return built(results)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a survey with warnings, without weights and PDFs, whose settings name folders of the machine."""
    results = fill(tmp_path_factory.mktemp("secret place") / "results", rows=2_000)
    write_json(results / "sample" / "weights.json", {"method": "none"})
    (results / "pdf" / "partition_info.csv").unlink()
    write_json(results / "split.json", read_json(results / "split.json") | {"warnings": [HOSTILE, "half is lost"]})
    places = {"data_dir": "/storage/jane/catalogues", "results_dir": str(results.parent)}
    survey = SURVEY | {"files": ["/storage/jane/catalogues/deep/*.fits", "/elsewhere/jane/more.fits"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "kestrel07")
        return built(results, CONFIG | places, survey)


def test_nothing_outside_the_page_is_referred_to(html: str, page: Page) -> None:
    addresses = [
        attributes[key] for _, attributes in page.tags for key in ("href", "src", "xlink:href") if attributes.get(key)
    ]
    assert addresses and all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import", html)


def test_ids_are_used_once_and_references_are_met(html: str, page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    sections = [attributes["id"] for attributes in page.all("h2")]
    assert len(set(sections)) == len(sections)
    used = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    assert used <= set(ids)
    clips = re.findall(r'<clipPath id="([^"]+)"', html)
    assert len(clips) == len(set(clips)), "a figure would be clipped like another one"


def test_hostile_text_from_catalogues_is_shown_and_does_nothing(html: str, page: Page) -> None:
    assert HOSTILE not in html
    assert HOSTILE in page.text
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)


def test_only_the_pages_own_script_may_run(html: str) -> None:
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.replace("&#39;", "'").replace("&#43;", "+")


def test_the_headline_says_what_a_reader_asks_first(results: Path, page: Page) -> None:
    board = read_json(results / "evaluation/fcnn/metrics.json")["splits"]["test"]["board"]
    assert "20,000 rows" in page.text and "by the model fcnn" in page.text
    assert f"{100 * board['eta_015']:.2f} %" in page.text
    assert f"{board['sigma_mad']:.4f}" in page.text


def test_every_figure_can_be_read_without_seeing_it(page: Page) -> None:
    pictures = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert len(pictures) == len(page.all("figure")) == len(page.all("figcaption")) >= 12
    assert all(len(attributes["aria-label"] or "") > 40 for attributes in pictures)
    assert len({attributes["aria-label"] for attributes in pictures}) == len(pictures)


@pytest.mark.parametrize(
    "told",
    ["duplicate_object_id", "low_quality", "ambiguous", "cut:mag_i", "a band was imputed", "train_model", "sigma_nmad",
     "numpy", "undetected u; imputed u", "far from every training row", "without u", "Lima et al. 2008", "512"],
)  # fmt: skip
def test_what_each_stage_found_is_there(page: Page, told: str) -> None:
    assert told in page.text


def test_calibration_and_stated_intervals_are_shown_as_they_were_measured(results: Path, page: Page) -> None:
    assert "power 0.75, remap of the PIT" in page.text and "none: nothing helped" in page.text
    assert "0.0512 → 0.0487" in page.text and "0.0832 → 0.0311" in page.text
    stated = read_json(results / "evaluation/fcnn/metrics.json")["splits"]["test"]["stated_coverage"]
    assert [entry["rows"] for entry in stated] == ["all", "bin", "bin", "bin", "no brightness", "out of distribution"]
    for entry, told in zip(stated, ("all", "i < 21.00", "21.00 ≤ i < 23.00", "i ≥ 23.00"), strict=False):
        found = entry["68%"]
        assert f"{told} {entry['n']:,} {percent(found['found']).text} ± {percent(found['error']).text}" in page.text


def test_reliable_rows_are_shown_as_they_were_measured(results: Path, page: Page) -> None:
    found = read_json(results / "evaluation/fcnn/metrics.json")["splits"]["test"]["reliability"]
    assert (
        f"z_mode is within 0.05 (1 + z) of the true one: {percent(found['right']).text} of the test rows" in page.text
    )
    shown = [cut["stated"] for part in (found, found["weighted"]) for cut in part["cuts"] if cut["stated"]]
    assert shown
    for cut in shown:
        assert f"{percent(cut['share']).text} {percent(cut['purity']).text} ± {percent(cut['error']).text}" in page.text


def test_every_phase_of_a_training_has_its_curve(page: Page) -> None:
    told = [attributes["aria-label"] or "" for attributes in page.all("div") if attributes.get("role") == "img"]
    assert any(label.startswith("Learning curve of fcnn over 30 epochs; the chosen epoch is 30") for label in told)
    assert any(
        label.startswith("Learning curve of fcnn, distilled over 20 epochs; the chosen epoch is 18") for label in told
    )


def test_a_search_is_shown_with_its_best_settings(results: Path, page: Page) -> None:
    search = read_json(results / "tune/fcnn/search.json")
    best = next(trial for trial in search["trials"] if trial["number"] == search["best"])
    assert "Settings searched" in page.text
    assert (
        "fcnn: 30 trials of a budget of 30, 20.0 min of training; 6 were given up for falling behind, 0 failed"
        in page.text
    )
    assert f"{best['score']:.5f}"[:6] in page.text and "scaling standard" in page.text
    assert "given up or failed" in page.text
    assert "The best trials of fcnn" in page.text


def test_without_a_search_no_search_is_shown(tables: str) -> None:
    assert "Settings searched" not in tables


def test_a_model_that_was_taken_out_does_not_show(tables: str) -> None:
    assert "fcnn" in tables and "takenout" not in tables


def test_counts_of_all_predicted_rows_are_exact(results: Path, page: Page) -> None:
    files = sorted((results / "photoz/dataset").rglob("Npix=*.parquet"))
    flags = [flag for file in files for flag in pq.read_table(file, columns=["flags"])["flags"].to_pylist()]
    assert f"{sum(flag == 0 for flag in flags):,}" in page.text
    assert f"{sum(bool(flag & 16) for flag in flags):,}" in page.text


def test_the_same_inputs_give_the_same_page(results: Path, html: str) -> None:
    assert built(results) == html


def test_numbers_are_sorted_as_numbers(html: str) -> None:
    assert 'data-value="20000.0"' in html and ">20,000<" in html


def test_the_best_model_of_each_pattern_is_marked(results: Path, html: str) -> None:
    table = re.search(r"<caption>CRPS of the PDFs of every model by pattern.*?</table>", html, re.DOTALL)[0]
    rows = re.findall(r"<tr>(<td>.*?)</tr>", table)
    with (results / "evaluation" / "patterns.csv").open() as handle:
        told = [row for row in csv.DictReader(handle) if row["split"] == "test" and row["model"] == "fcnn"]
    assert [re.search(r"<td>(.*?)</td>", row)[1] for row in rows] == [row["pattern"] for row in told]
    for row, fcnn in zip(rows, told, strict=True):
        assert re.findall(r'class="number best" data-value="([^"]+)"', row) == [str(float(fcnn["crps"]))]


def test_weighted_metrics_are_shown_with_plain_ones(results: Path, page: Page) -> None:
    found = read_json(results / "evaluation/knn/metrics.json")["splits"]["test"]
    assert f"{found['board']['sigma_mad']:.4f}" in page.text
    assert f"{found['weighted']['board']['sigma_mad']:.4f}" in page.text
    assert f"{found['weighted']['effective_rows']:,.0f}" in page.text
    low, high = found["weighted"]["intervals"]["metrics"]["sigma_mad"]
    assert (
        f"{number(found['weighted']['board']['sigma_mad']).text} ({number(low).text} to {number(high).text})"
        in page.text
    )


def test_a_survey_that_is_not_weighed_says_so(plain: str) -> None:
    assert "weights.method: none" in Page(plain).text


def test_a_survey_without_positions_says_what_is_left_out(tables: str) -> None:
    page = Page(tables)
    assert "given as tables without positions" in page.text
    assert "nothing to match on the sky" in page.text
    assert "no catalogue to weigh labelled rows to" in page.text
    assert "Every predicted row" not in page.text
    assert "rows with a photo-z by the model fcnn" in page.text


def test_without_pdfs_the_points_are_shown(plain: str) -> None:
    page = Page(plain)
    assert "medians, all rows" in page.text and "stacked PDFs" not in page.text.split("Normalised redshift")[1][:200]


def test_few_blocks_of_sky_are_a_warning(tables: str) -> None:
    page = Page(tables)
    assert "no interval from 2 block(s) of sky" in page.text and "68 %: –" not in page.text
    assert "of which there are 2; at least 5 are needed" in page.text


def test_metrics_that_could_not_be_computed_are_dashes(tables: str) -> None:
    assert "CRPS of the PDFs –" in Page(tables).text


def test_warnings_of_all_stages_stand_at_the_head_and_do_nothing_else(html: str, plain: str) -> None:
    assert 'role="note"' not in html
    assert f"2 warnings split: {HOSTILE} split: half is lost" in Page(plain).text
    assert HOSTILE not in plain


def test_no_path_of_the_machine_is_shown(plain: str) -> None:
    for planted in ("jane", "secret place", "kestrel07"):
        assert planted not in plain
    assert "deep/*.fits" in plain and "more.fits" in plain, "which files they were stays"
