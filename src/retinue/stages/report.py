"""Report: one self-contained HTML page a team can review, made of the artifacts of all other stages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Correction
from retinue.pipeline.files import replacing, write_json, write_table
from retinue.pipeline.numbers import short
from retinue.pipeline.plan import load_plan, sections_of
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.reports.contents import content
from retinue.reports.doubtful_labels import FILE
from retinue.reports.inputs import ReportInputs
from retinue.reports.markdown_card import markdown_card
from retinue.reports.page import render_report


@dataclass(frozen=True)
class ReportSettings(Checked, section="report"):
    """conf/report.

    Attributes:
        title: heading of the page.
        gallery_columns: explained images beside each other on a wide screen; a phone shows fewer.
        slice_images: of the smallest slice of the test split that is looked at, and of what is not in it.
        licence: of the network, for the model card: a name, as SPDX has it, or a sentence.
        contact: whom to ask about it.
        intended_use: what it is meant for, and by whom it is to be used.
        out_of_scope: what it is not meant for.
        considerations: whom its mistakes may harm, and what was done about it.

    Of the last five "" stands in the card as "not stated".
    """

    title: str = field(metadata=allowed(pattern=r".*\S.*", expected="some text"))
    gallery_columns: int = field(metadata=allowed(ge=1, le=8))
    slice_images: int = field(metadata=allowed(ge=2, most=1_000_000))
    licence: str
    contact: str
    intended_use: str
    out_of_scope: str
    considerations: str


@dataclass(frozen=True)
class ReportPlan:
    """All that shapes a result: the page shows it, and its fingerprint."""

    seed: int
    source: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    augment: Mapping[str, Any]
    model: Mapping[str, Any]
    weights: Mapping[str, Any]
    transfer: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    loss: Mapping[str, Any]
    train: Mapping[str, Any]
    calibrate: Mapping[str, Any]
    baseline: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    explain: Mapping[str, Any]
    report: ReportSettings


SECTIONS = sections_of(ReportPlan)


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads all artifacts, writes report/index.html and the model card."""
    plan = load_plan(ReportPlan, settings)
    said = content(asdict(plan), settings.fingerprint(), ReportInputs.read())
    page = render_report(said)
    with replacing(artifacts.REPORT.parent) as folder:
        (folder / artifacts.REPORT.name).write_text(page, "utf-8")
        write_table(folder / FILE, Correction, said["doubtful"]["lines"])
    write_json(artifacts.MODEL_CARD, asdict(said["model_card"]))
    artifacts.MODEL_CARD_TEXT.write_text(markdown_card(said["model_card"]), "utf-8")
    tracker.summary({"fingerprint": settings.fingerprint()})
    tracker.page("report", artifacts.REPORT)
    tracker.artifact(artifacts.REPORT.parent, "report")
    tracker.artifact(artifacts.MODEL, "model")  # the version that calibrate logged has no card
    print(f"report: {artifacts.REPORT} ({short(len(page.encode()), 'B')}), open it in any browser")


if __name__ == "__main__":
    main("report", run, SECTIONS)
