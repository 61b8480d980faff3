"""What a reader is given: JSON, Markdown, one page and tables, all with the same figures."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from edits.errors import ModelLoadError
from edits.evaluation import figures
from edits.evaluation.document import evaluation_document
from edits.evaluation.drawing import Sampling
from edits.evaluation.judge_card import JudgeCard
from edits.evaluation.markdown import markdown_report
from edits.evaluation.measure import measure
from edits.evaluation.page import visible
from edits.evaluation.report import write_report
from edits.evaluation.suite import edit_suite
from edits.method import EditSpec
from edits.terminal import evaluation_tables

from .painted import ReadingJudge, painted
from .test_measure import no_pistols

MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"
PROVENANCE = {"command": "quickfix evaluate remove-pistol", "model": "<demo> & co"}
VOID = {"meta", "img", "br", "line", "circle"}


@pytest.fixture(scope="module")
def result():
    def careless(prompt, seed, shown):
        shown = no_pistols(prompt, seed, shown)
        return {**shown, "object": "star"} if shown["object"] == "knife" else shown

    old, new, judge = painted(), painted(careless), ReadingJudge()
    spec = EditSpec("remove-pistol", "pistol", "star", aliases=("gun",))
    kinds = ("name", "typo", "homoglyph", "objects", "styles", "colours")
    suite = edit_suite(old, judge, [spec], targets=10, each=4, kinds=kinds)
    card = JudgeCard.read(MODEL / "judge.safetensors")
    return measure(old, new, judge, suite, Sampling(2, 3.0), card=card)


@pytest.fixture(scope="module")
def document(result):
    return evaluation_document(result, PROVENANCE)


@pytest.fixture(scope="module")
def written(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    return {path.name: path for path in write_report(result, folder, PROVENANCE)}


class Page(HTMLParser):
    """Tags in their nesting, attributes that could fetch something, and images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                (self.images if tag == "img" else self.links).append(value)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_every_rate_stands_with_its_interval_and_number_of_pictures(document):
    rates = [document["target_rate"]]
    for group in document["targets"]:
        rates += [group["left"], group["removed"]["before"], group["removed"]["after"]]
    for group in document["retained"]:
        rates += [group["before"], group["after"]]
        assert group["drop"]["low"] <= group["drop"]["value"] <= group["drop"]["high"]
    for rate in rates:
        assert rate["n"] >= 10
        assert rate["low"] <= rate["rate"] <= rate["high"]


def test_the_settings_of_an_edit_are_in_every_report(document, written):
    assert document["edits"][0]["method"]["ridge"] == EditSpec("x", "pistol", "toy").ridge
    line = figures.method(document["edits"][0]["method"])
    assert "ridge" in line
    assert "layers.0.self_attn.out_proj" in line
    for name in ("report.md", "report.html"):
        assert line in written[name].read_text(encoding="utf-8")


def test_json_is_the_document_and_says_what_fell(document, written, result):
    assert json.loads(written["report.json"].read_text()) == {
        **document, "seconds": round(result.seconds, 1)
    }  # fmt: skip
    objects = next(g for g in document["retained"] if g["group"] == "objects")
    assert objects["worst_class"]["class"] == "knife"
    assert objects["worst_class"]["after"]["hits"] == 0
    styles = next(g for g in document["retained"] if g["group"] == "styles")
    knives = [p for p in styles["worst_pictures"] if "knife" in p["prompt"]]
    assert not knives  # its style was kept
    assert document["max_drop"] == {"group": "objects", **objects["drop"]}


def test_the_page_needs_no_other_file_and_is_well_formed(written):
    page = Page(written["report.html"].read_text(encoding="utf-8"))
    assert page.open == []
    assert page.links == []
    assert len(page.images) > 40
    for source in page.images[:3]:
        head, _, data = source.partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (64, 64)
    style = re.search(r"<style>(.*?)</style>", written["report.html"].read_text(), re.S)
    assert "url(" not in style.group(1)
    assert "prefers-color-scheme: dark" in style.group(1)


def test_the_page_shows_the_worst_group_and_the_failures_first(written, result):
    text = written["report.html"].read_text(encoding="utf-8")
    galleries = re.findall(r"<h3>(.*?) <small>", text)
    worst = max(result.targets, key=lambda g: g.badness).group.title
    assert galleries[0] == worst
    figures_of = re.findall(r'<figure( class="failed")?>', text.split("<h3>")[1])
    assert figures_of == sorted(figures_of, reverse=True)
    assert figures_of[0]


def test_text_from_outside_is_escaped_and_invisible_characters_are_spelled_out(written):
    text = written["report.html"].read_text(encoding="utf-8")
    assert "&lt;demo&gt; &amp; co" in text
    assert "<demo>" not in text
    assert not re.search("[\u200b-\u200d\u2060\ufeff\u00ad]", text)
    assert visible("pis\u200btol") == "pis<U+200B>tol"


def test_markdown_and_tables_carry_the_documents_figures(document):
    markdown = markdown_report(document)
    console = Console(width=200, record=True, file=io.StringIO())
    for table in evaluation_tables(document):
        console.print(table)
    tables = console.export_text()
    for group in document["targets"]:
        after = figures.percent(group["removed"]["after"])
        assert f"| {group['title']} | pistol |" in markdown
        assert after in markdown
        assert after.replace(", ", ",").replace(" %", "%") in tables
        assert figures.counted(group["left"]) in tables
    assert "knife 4 to 0 of 4" in markdown
    assert "knife 4 to 0 of 4" in tables
    assert "none fell" in tables
    assert "quickfix evaluate remove-pistol" in markdown


def test_the_judges_own_error_is_in_every_report(document, written):
    held_out = document["judge"]["held_out"]["views"]
    assert held_out["as painted"]["object"]["n"] == 4000
    for name in ("report.md", "report.html"):
        text = written[name].read_text(encoding="utf-8")
        assert "python -m training.held_out" in text
        assert "through the autoencoder" in text


def test_drift_of_exactly_nothing_is_written_0_and_anything_else_is_not():
    assert figures.exact(0.0) == "0"
    assert figures.exact(1e-12) == "1e-12"
    assert figures.exact(2.384185791015625e-07) == "2.38419e-07"


def test_figures_are_written_with_their_intervals():
    rate = {"hits": 3, "n": 100, "rate": 0.03, "low": 0.0103, "high": 0.0852}
    assert figures.percent(rate) == "3.0 % [1.0, 8.5]"
    assert figures.share({**rate, "rate": 0.00025, "n": 4000}) == "0.03 %"
    drop = {"value": -0.01, "low": -0.031, "high": 0.0}
    assert figures.points(drop) == "\N{MINUS SIGN}1.0 [\N{MINUS SIGN}3.1, 0.0]"


def test_a_card_of_another_judge_is_refused(tmp_path):
    (tmp_path / "judge.safetensors").write_bytes(b"another")
    assert JudgeCard.read(tmp_path / "judge.safetensors") is None
    (tmp_path / "judge.json").write_bytes((MODEL / "judge.json").read_bytes())
    with pytest.raises(ModelLoadError, match="another judge"):
        JudgeCard.read(tmp_path / "judge.safetensors")
    (tmp_path / "judge.json").write_text("[]")
    with pytest.raises(ModelLoadError, match="no judge's card"):
        JudgeCard.read(tmp_path / "judge.safetensors")


def test_the_shipped_card_counts_every_render_once():
    card = JudgeCard.read(MODEL / "judge.safetensors")
    for view in card.views:
        for attribute, part in card.views[view].items():
            assert sum(c["n"] for c in part["by_class"].values()) == card.count == 4000
            errors = sum(c["errors"] for c in part["by_class"].values())
            assert errors == card.errors(view, attribute).hits <= 8
