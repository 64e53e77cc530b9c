"""The model card: the figures of the page, in the sections of Mitchell et al. (2019), as JSON and as Markdown."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from report_artifacts import BINARY, Scene, settings_values, write_artifacts
from retinue.pipeline import artifacts
from retinue.pipeline.files import sha256
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages import report

SECTIONS = [
    *("Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data"),
    *("Quantitative analyses", "Ethical considerations", "Caveats and recommendations"),
]
HOSTILE = ["<script>alert(1)</script>", "a|b\n| c | d |", "[x](javascript:alert(1))", "**bold** `code`", "# head"]
SAID = {
    "licence": "CC-BY-4.0",
    "contact": "team@example.org",
    "intended_use": "Sorting photographs of a garden.",
    "out_of_scope": "Pest control.",
    "considerations": "- Nobody is pictured.",
}


class Text(HTMLParser):
    """Rendered Markdown: its tags, and its text tag by tag."""

    def __init__(self, markdown: str):
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data


def card_of(folder: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> tuple[dict, str]:
    """Runs the stage on a scene below `folder`: the card as document and as text."""
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    write_artifacts(scene)
    report.run(Settings(settings_values(scene), report.SECTIONS), Tracker(None))
    return json.loads(artifacts.MODEL_CARD.read_text("utf-8")), artifacts.MODEL_CARD_TEXT.read_text("utf-8")


@pytest.mark.slow
def test_its_figures_are_those_of_the_stages(tmp_path, monkeypatch):
    card, text = card_of(tmp_path, monkeypatch, BINARY)
    metrics = artifacts.read_metrics()
    assert card["quantitative_analyses"]["intervals"] == metrics["intervals"]
    assert card["quantitative_analyses"]["per_class"] == json.loads(json.dumps(metrics["per_class"]))
    assert card["weights_sha256"] in ("", sha256(artifacts.WEIGHTS))
    assert card["evaluation_data"]["counts"] == artifacts.read_dataset().counts["test"]
    shown = Text(text)
    assert shown.texts["h2"] == SECTIONS
    assert f"{metrics['accuracy_score']:.4f}" in shown.texts["td"]
    for stated in ("licence", "contact"):
        assert f"| {stated} | not stated |" in text


@pytest.mark.slow
def test_what_no_figure_tells_is_taken_from_the_settings(tmp_path, monkeypatch):
    scene = replace(BINARY, sections={**(BINARY.sections or {}), "report": SAID})
    card, text = card_of(tmp_path, monkeypatch, scene)
    shown = Text(text)
    assert card["model_details"]["licence"] == SAID["licence"]
    assert {SAID["licence"], SAID["contact"]} <= set(shown.texts["td"])
    assert f"Intended: {SAID['intended_use']}" in shown.texts["p"]
    assert f"Out of scope: {SAID['out_of_scope']}" in shown.texts["p"]
    assert SAID["considerations"] in shown.texts["p"]


@pytest.mark.slow
def test_hostile_names_stay_text(tmp_path, monkeypatch):
    classes = sorted(HOSTILE)
    scene = Scene(
        classes=classes,
        skill=1.5,
        prefix=HOSTILE[2] + "/",
        sections={"report": dict(zip(SAID, HOSTILE, strict=True))},
    )
    card, text = card_of(tmp_path, monkeypatch, scene)
    shown = Text(text)
    assert shown.tags == {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert card["model_details"]["classes"] == classes
    rows = [re.sub(r"\s+", " ", name) for name in classes]
    assert [cell for cell in shown.texts["td"] if cell in rows][-len(rows) :] == rows
    assert shown.texts["h2"] == SECTIONS


@pytest.mark.slow
def test_many_classes_do_not_make_a_long_card(tmp_path, monkeypatch):
    classes = [f"class {i:03}" for i in range(120)]
    card, text = card_of(tmp_path, monkeypatch, Scene(classes=classes, per_class=4))
    assert len(card["quantitative_analyses"]["per_class"]) == 120
    assert "class 099 4 and 20 more" in text
    assert text.count("\n| class 0") == 100
