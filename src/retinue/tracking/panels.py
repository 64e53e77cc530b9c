"""The panels of W&B's workspace and report: what wandb.yaml says of each, and the panel W&B makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from retinue.pipeline import wandb_charts
from retinue.pipeline.errors import SettingsError, unknown
from retinue.pipeline.ranges import allowed
from retinue.pipeline.settings import strict

KEY_KINDS = ("config", "history", "summary")
MAX_RUNS = 50
"""Executions that one panel draws."""


class Key(NamedTuple):
    """What a stage logs.

    Attributes:
        kind: one of `KEY_KINDS`.
        name: path in the config, or name in summary or history.
    """

    kind: str
    name: str

    @classmethod
    def parse(cls, text: str, where: str, kinds: Sequence[str] = KEY_KINDS) -> "Key":
        """The key spelled `kind:name`.

        Raises:
            SettingsError: it is not spelled so, or is of a kind that does not fit there.
        """
        kind, colon, name = str(text).partition(":")
        if not colon or not name:
            raise SettingsError(f"{where}: expected KIND:NAME, such as {kinds[0]}:NAME, got {text!r}.")
        if kind not in kinds:
            raise SettingsError(f"{where}: {text!r}: {unknown('kind of key', kind, kinds)}")
        return cls(kind, name)

    @property
    def column(self) -> str:
        """Spells a column of a table of runs as W&B does: a config key has `.value` after its first part."""
        if self.kind != "config":
            return f"{self.kind}:{self.name}"
        first, dot, rest = self.name.partition(".")
        return f"config:{first}.value{dot}{rest}"

    def metric(self) -> Any:
        """The name of the metric as panels take it."""
        import wandb_workspaces.reports.v2 as wr

        kinds = {"config": wr.Config, "summary": wr.SummaryMetric, "history": wr.Metric}
        return kinds[self.kind](self.name)


class Panel(Protocol):
    """A kind of panel: its settings in the file, the keys it shows, and W&B's panel of it."""

    def keys_shown(self, where: str) -> list[Key]: ...

    def build(self, layout: Any) -> Any: ...


@dataclass(frozen=True)
class Lines:
    """Values per epoch, a line per execution."""

    title: str
    x: str
    keys: list[str]
    log_y: bool = False

    def keys_shown(self, where: str) -> list[Key]:
        return [Key.parse(key, where, ("history",)) for key in [self.x, *self.keys]]

    def build(self, layout: Any) -> Any:
        import wandb_workspaces.reports.v2 as wr

        x, *ys = (key.metric() for key in self.keys_shown(""))
        return wr.LinePlot(title=self.title, x=x, y=ys, log_y=self.log_y, max_runs_to_show=MAX_RUNS, layout=layout)


@dataclass(frozen=True)
class Bars:
    """Final values, a bar per execution."""

    title: str
    keys: list[str]

    def keys_shown(self, where: str) -> list[Key]:
        return [Key.parse(key, where, ("summary",)) for key in self.keys]

    def build(self, layout: Any) -> Any:
        import wandb_workspaces.reports.v2 as wr

        names = [wr.Metric(key.name) for key in self.keys_shown("")]
        return wr.BarPlot(title=self.title, metrics=list(names), max_runs_to_show=MAX_RUNS, layout=layout)


@dataclass(frozen=True)
class Scatter:
    """Two final values or settings against each other, a point per execution."""

    title: str
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False

    def keys_shown(self, where: str) -> list[Key]:
        return [Key.parse(key, where, ("config", "summary")) for key in (self.x, self.y)]

    def build(self, layout: Any) -> Any:
        import wandb_workspaces.reports.v2 as wr

        x, y = (key.metric() for key in self.keys_shown(""))
        return wr.ScatterPlot(title=self.title, x=x, y=y, log_x=self.log_x, log_y=self.log_y, layout=layout)


@dataclass(frozen=True)
class Parallel:
    """Parallel coordinates: an axis per key, a line per execution; those in `log` have a logarithmic axis."""

    title: str
    keys: list[str]
    log: list[str] = field(default_factory=list)

    def keys_shown(self, where: str) -> list[Key]:
        for key in self.log:
            if key not in self.keys:
                raise SettingsError(f"{where}.log: {unknown('key', key, self.keys)}")
        return [Key.parse(key, where, ("config", "summary")) for key in self.keys]

    def build(self, layout: Any) -> Any:
        import wandb_workspaces.reports.v2 as wr

        column = wr.ParallelCoordinatesPlotColumn
        axes = [
            column(metric=key.metric(), display_name=key.name, log=text in self.log or None)
            for text, key in zip(self.keys, self.keys_shown(""), strict=True)
        ]
        return wr.ParallelCoordinatesPlot(title=self.title, columns=axes, layout=layout)


@dataclass(frozen=True)
class Importance:
    """Which settings go with the final value `key`."""

    key: str

    def keys_shown(self, where: str) -> list[Key]:
        return [Key.parse(self.key, where, ("summary",))]

    def build(self, layout: Any) -> Any:
        import wandb_workspaces.reports.v2 as wr

        return wr.ParameterImportancePlot(with_respect_to=self.keys_shown("")[0].name, layout=layout)


@dataclass(frozen=True)
class Gallery:
    """Images or pages."""

    title: str
    key: str
    columns: int = field(default=4, metadata=allowed(ge=1, most=100))

    def keys_shown(self, where: str) -> list[Key]:
        return [Key.parse(self.key, where, ("history",))]

    def build(self, layout: Any) -> Any:
        import wandb_workspaces.reports.v2 as wr

        keys = [self.keys_shown("")[0].name]
        return wr.MediaBrowser(title=self.title, media_keys=keys, num_columns=self.columns, layout=layout)


@dataclass(frozen=True)
class TablePanel:
    """A table that a stage logged."""

    key: str

    def keys_shown(self, where: str) -> list[Key]:
        return [Key.parse(self.key, where, ("history",))]

    def build(self, layout: Any) -> Any:
        import wandb_workspaces.reports.v2 as wr

        return wr.WeavePanelSummaryTable(table_name=self.keys_shown("")[0].name, layout=layout)


def _tables_of(text: str, where: str) -> list[Key]:
    """The table of a chart's points, which is what W&B logs of it."""
    chart = Key.parse(text, where, ("history",))
    return [chart._replace(name=f"{chart.name}_table")]


def _chart(name: str, table: Key, fields: Mapping[str, str], texts: Mapping[str, str], layout: Any) -> Any:
    """W&B's chart `name` of a table, as the client draws it in the page of the run."""
    import wandb_workspaces.reports.v2 as wr

    query = {"summaryTable": {"tableKey": table.name}}
    return wr.CustomChart(
        query=query, chart_name=name, chart_fields=dict(fields), chart_strings=dict(texts), layout=layout
    )


@dataclass(frozen=True)
class CurvePanel:
    """A chart of lines that a stage logged, drawn as W&B draws it in the page of the run."""

    title: str
    key: str
    x_name: str

    def keys_shown(self, where: str) -> list[Key]:
        return _tables_of(self.key, where)

    def build(self, layout: Any) -> Any:
        fields = {name: name for name in ("step", "lineKey", "lineVal")}
        texts = {"title": self.title, "xname": self.x_name}
        return _chart(wandb_charts.LINES, self.keys_shown("")[0], fields, texts, layout)


@dataclass(frozen=True)
class ConfusionPanel:
    """A confusion matrix that a stage logged."""

    title: str
    key: str

    def keys_shown(self, where: str) -> list[Key]:
        return _tables_of(self.key, where)

    def build(self, layout: Any) -> Any:
        fields = {name: name for name in wandb_charts.CELLS}
        return _chart(wandb_charts.CONFUSION, self.keys_shown("")[0], fields, {"title": self.title}, layout)


@dataclass(frozen=True)
class CountsPanel:
    """How many images there are of each name, as a stage logged it; `label` is what the names are."""

    title: str
    key: str
    label: str

    def keys_shown(self, where: str) -> list[Key]:
        return _tables_of(self.key, where)

    def build(self, layout: Any) -> Any:
        fields = {"label": self.label, "value": "images"}
        return _chart(wandb_charts.BARS, self.keys_shown("")[0], fields, {"title": self.title}, layout)


@dataclass(frozen=True)
class Artifact:
    """The artifact `name`, with the runs it comes from and goes to."""

    name: str

    def keys_shown(self, where: str) -> list[Key]:
        return []

    def build(self, layout: Any) -> Any:
        import wandb_workspaces.reports.v2 as wr

        return wr.WeavePanelArtifact(artifact=self.name, tab="lineage", layout=layout)


@dataclass(frozen=True)
class Differences:
    """Settings and final values side by side, those that differ."""

    def keys_shown(self, where: str) -> list[Key]:
        return []

    def build(self, layout: Any) -> Any:
        import wandb_workspaces.reports.v2 as wr

        return wr.RunComparer(diff_only="split", layout=layout)


PANELS: dict[str, type] = {
    "artifact": Artifact,
    "bars": Bars,
    "confusion": ConfusionPanel,
    "counts": CountsPanel,
    "curve": CurvePanel,
    "differences": Differences,
    "gallery": Gallery,
    "importance": Importance,
    "lines": Lines,
    "parallel": Parallel,
    "scatter": Scatter,
    "table": TablePanel,
}


def load_panel(values: Any, where: str) -> Panel:
    """The panel that `values` describe: its `kind` and the settings of that kind, loaded strictly.

    Raises:
        SettingsError: the kind or a key is unknown (with the near match), or a key of a run does not fit there.
    """
    if not isinstance(values, Mapping) or "kind" not in values:
        raise SettingsError(f"{where}: expected a mapping with a kind, one of {', '.join(PANELS)}; got {values!r}.")
    kind = str(values["kind"])
    if kind not in PANELS:
        raise SettingsError(f"{where}: {unknown('kind', kind, PANELS)}")
    panel: Panel = strict(PANELS[kind], {key: value for key, value in values.items() if key != "kind"}, where=where)
    panel.keys_shown(where)
    return panel
