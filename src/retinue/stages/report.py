"""Report: one self-contained HTML page a team can review, made of the artifacts of all other stages."""

from dataclasses import dataclass, field

from retinue.pipeline import artifacts
from retinue.pipeline.files import replacing
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.reports.contents import content
from retinue.reports.inputs import ReportInputs
from retinue.reports.page import render

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
class ReportSettings(Checked, section="report"):
    """conf/report.

    Attributes:
        title: heading of the page.
        gallery_columns: explained images beside each other on a wide screen; a phone shows fewer.
    """

    title: str = field(metadata=allowed(pattern=r".*\S.*", expected="some text"))
    gallery_columns: int = field(metadata=allowed(ge=1, le=8))


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads all artifacts, writes report/index.html."""
    settings.section("report", ReportSettings)
    sections = {name: settings.plain(name) for name in SECTIONS}
    page = render(content(sections, settings.fingerprint(), ReportInputs.read()))
    with replacing(artifacts.REPORT.parent) as folder:
        (folder / artifacts.REPORT.name).write_text(page, "utf-8")
    tracker.summary({"fingerprint": settings.fingerprint()})
    tracker.artifact(artifacts.REPORT.parent, "report")
    print(f"report: {artifacts.REPORT} ({len(page.encode()) / 1e6:.1f} MB), open it in any browser")


if __name__ == "__main__":
    main("report", run, SECTIONS)
