"""Report: one self-contained HTML page a team can review, made of the artifacts of all other stages."""

from dataclasses import dataclass

from retinue.pipeline import artifacts
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.files import replacing
from retinue.pipeline.numbers import short
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.reports.contents import content
from retinue.reports.inputs import ReportInputs
from retinue.reports.page import render_report

SECTIONS = (
    "seed",
    "source",
    "preprocess",
    "augment",
    "model",
    "weights",
    "transfer",
    "optimizer",
    "schedule",
    "train",
    "evaluate",
    "explain",
    "report",
)
"""All that shape a result: the page shows them, and their fingerprint."""


@dataclass(frozen=True)
class ReportSettings:
    """conf/report.

    Attributes:
        title: heading of the page, not empty.
        gallery_columns: explained images beside each other on a wide screen, 1 to 8; a phone shows fewer.
    """

    title: str
    gallery_columns: int

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise SettingsError("report.title: expected some text, got an empty title.")
        if not 1 <= self.gallery_columns <= 8:
            raise SettingsError(f"report.gallery_columns: expected 1 to 8, got {self.gallery_columns}.")


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads all artifacts, writes report/index.html."""
    settings.section("report", ReportSettings)
    sections = {name: settings.plain(name) for name in SECTIONS}
    page = render_report(content(sections, settings.fingerprint(), ReportInputs.read()))
    with replacing(artifacts.REPORT.parent) as folder:
        (folder / artifacts.REPORT.name).write_text(page, "utf-8")
    tracker.summary({"fingerprint": settings.fingerprint()})
    tracker.artifact(artifacts.REPORT.parent, "report")
    print(f"report: {artifacts.REPORT} ({short(len(page.encode()), 'B')}), open it in any browser")


if __name__ == "__main__":
    main("report", run, SECTIONS)
