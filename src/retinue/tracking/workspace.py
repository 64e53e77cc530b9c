"""W&B's workspace and report, built from a file: what wandb.yaml says is what the project shows.

Building needs no server; `run` sends both, and what it sent before is replaced.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from retinue.pipeline.composition import load_params, project_root
from retinue.pipeline.errors import RetinueError, SettingsError
from retinue.pipeline.ranges import allowed
from retinue.pipeline.settings import fingerprint, strict
from retinue.pipeline.tracker import TrackingSettings
from retinue.tracking.panels import MAX_RUNS, Key, Panel, load_panel
from retinue.tracking.runs import server

REPORT_COLUMNS = 24
"""Width of W&B's grid of panels."""

PANEL_HEIGHT = 8


@dataclass(frozen=True)
class SectionSettings:
    """A section of the file, its panels not loaded yet.

    Attributes:
        stage: whose runs log what its panels show.
        panels_per_row: panels beside each other.
    """

    name: str
    stage: str
    text: str
    panels_per_row: int = field(metadata=allowed(ge=1, le=4))
    panels: list[Any]


@dataclass(frozen=True)
class FileSettings:
    """The file as it is written, its sections not loaded yet."""

    name: str
    description: str
    columns: list[str]
    sections: list[Any]


class Section(NamedTuple):
    """A loaded section.

    Attributes:
        settings: of the section.
        panels: in the order of the file.
        keys: what the panels show.
    """

    settings: SectionSettings
    panels: list[Panel]
    keys: list[Key]


class Board(NamedTuple):
    """A loaded file."""

    name: str
    description: str
    columns: list[Key]
    sections: list[Section]


def load(path: Path) -> Board:
    """Loads the file strictly.

    Raises:
        SettingsError: the file is missing; a key of it is unknown (with the near match) or of the wrong type; a key of
            a run is not spelled `kind:name`.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: no such file. docs/tracking.md says what it holds.")
    file = strict(FileSettings, load_params(path), where=path.name)
    columns = [Key.parse(key, f"{path.name}: columns", ("config", "summary")) for key in file.columns]
    if not columns:
        raise SettingsError(f"{path.name}: columns: expected one at least; the first orders the tables.")
    sections = [_section(values, f"{path.name}: sections[{row}]") for row, values in enumerate(file.sections)]
    return Board(file.name, file.description, columns, sections)


def build_workspace(board: Board, entity: str, project: str) -> Any:
    """`board` as a `wandb_workspaces.workspaces.Workspace`, a row per execution of the pipeline."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(
            name=section.settings.name,
            panels=[
                wr.MarkdownPanel(markdown=section.settings.text),
                *(panel.build(wr.Layout()) for panel in section.panels),
            ],
            is_open=True,
            layout_settings=ws.SectionLayoutSettings(
                columns=section.settings.panels_per_row, rows=_num_grid_rows(1 + len(section.panels), section)
            ),
        )
        for section in board.sections
    ]
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=board.name,
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=MAX_RUNS),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Metric("Group")],
            order=[ws.Ordering(ws.Summary(board.columns[0].name), ascending=False)],
            pinned_columns=[key.column for key in board.columns],
        ),
    )
    # not a public attribute: without it every save makes one view more. W&B's names of views are nw-<11 characters>-v
    workspace._internal_name = f"nw-{fingerprint(board.name)[:11]}-v"
    return workspace


def build_report(board: Board, entity: str, project: str) -> Any:
    """`board` as a `wandb_workspaces.reports.v2.Report`: per section a text, a grid and the runs of its stage."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for section in board.sections:
        width = REPORT_COLUMNS // section.settings.panels_per_row
        panels = [
            panel.build(wr.Layout(x=column * width, y=row * PANEL_HEIGHT, w=width, h=PANEL_HEIGHT))
            for panel, (row, column) in zip(section.panels, _places(section), strict=True)
        ]
        runs = wr.Runset(
            name=section.settings.stage,
            filters=f"Metric('JobType') = '{section.settings.stage}'",
            order=[wr.OrderBy(wr.SummaryMetric(board.columns[0].name), ascending=False)],
            pinned_columns=["run:displayName", *(key.column for key in board.columns)],
        )
        grid = wr.PanelGrid(runsets=[runs], panels=panels)
        blocks += [wr.H2(section.settings.name), wr.MarkdownBlock(section.settings.text), grid]
    return wr.Report(
        project=project, entity=entity, title=board.name, description=board.description, blocks=blocks, width="fluid"
    )


def run(path: Path, *, as_json: bool) -> None:
    """Sends the workspace and the report in the file at `path` and prints their addresses.

    They belong to the project and entity of the section tracking of params.yaml.

    Args:
        path: of the file.
        as_json: print what would be sent, as one JSON document, and send nothing.

    Raises:
        RetinueError: the file is wrong, or there is no API key, or no server that takes them.
    """
    board = load(path)
    own = strict(TrackingSettings, load_params(project_root() / "params.yaml")["tracking"], where="tracking")
    if as_json:
        entity = own.entity or "ENTITY"
        specs = {
            "workspace": json.loads(build_workspace(board, entity, own.project)._model.model_dump_json(by_alias=True)),
            "report": json.loads(build_report(board, entity, own.project)._to_model().model_dump_json(by_alias=True)),
        }
        print(json.dumps(specs, indent=2))
        return
    with server() as api:
        entity = own.entity or api.default_entity
        if entity is None:
            raise RetinueError("tracking.entity: the account has no default entity; name the user or team.")
        report = _save_report(board, api, entity, own.project)
        workspace = _save_workspace(board, api, entity, own.project)
    print(f"workspace  {workspace}\nreport     {report}")


def _save_report(board: Board, api: Any, entity: str, project: str) -> str:
    """Creates the project where there is none, and the report, or replaces the one of the same title."""
    report = build_report(board, entity, project)
    if any(known.name == project for known in api.projects(entity)):
        same = [known for known in api.reports(f"{entity}/{project}") if known.display_name == board.name]
        report.id = same[0].id if same else ""
    return report.save().url


def _save_workspace(board: Board, api: Any, entity: str, project: str) -> str:
    """Creates the workspace, or replaces the one of the same name."""
    from wandb_workspaces.workspaces import Workspace

    workspace = build_workspace(board, entity, project)
    try:
        earlier = Workspace.from_url(workspace.url)
    except ValueError:  # there is none
        return workspace.save().url
    workspace._internal_id = earlier._internal_id
    return workspace.save().url


def _section(values: Any, where: str) -> Section:
    settings = strict(SectionSettings, values, where=where)
    panels = [load_panel(panel, f"{where}.panels[{row}]") for row, panel in enumerate(settings.panels)]
    return Section(settings, panels, [key for panel in panels for key in panel.keys_shown(where)])


def _places(section: Section) -> list[tuple[int, int]]:
    """Row and column of each panel."""
    return [divmod(index, section.settings.panels_per_row) for index in range(len(section.panels))]


def _num_grid_rows(panels: int, section: Section) -> int:
    return -(-panels // section.settings.panels_per_row)
