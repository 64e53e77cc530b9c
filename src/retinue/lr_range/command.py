"""The command `retinue lr-range`."""

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from retinue.lr_range.measurement import MARGIN, Curve, LrRange, measure
from retinue.pipeline.numbers import figure, significant
from retinue.pipeline.settings import Settings
from retinue.reports.axes import Axis
from retinue.reports.charts import Line, line_chart

ROWS = 20
BAR = 40
"""Lines of the table, and the longest bar in it, in characters."""

_PAGE = Markup("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Learning-rate range test</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>Learning-rate range test</h1>
<p class="quiet">{title}</p>
{sentences}
</header>
<main><div class="charts"><figure class="wide">{chart}
<figcaption class="quiet small">Thick: the smoothed loss. Thin: the loss of each batch. Dot: where the smoothed loss
falls fastest. Dashed: the rate that is recommended.</figcaption></figure></div></main>
</body>
</html>
""")


def run(composition: Mapping[str, Any], span: LrRange, *, output: Path | None, as_json: bool) -> None:
    """Tests the learning rates of `span` and prints what was found.

    Args:
        composition: of conf/.
        span: what is tested.
        output: an HTML file for the curve; None: none.
        as_json: one JSON document instead of the table.
    """
    settings = Settings(composition)
    with redirect_stdout(sys.stderr):  # what the weights and transfer=auto have to say is not the result
        curve = measure(settings, span)
    if curve is None:
        return
    title = _title(settings, span)
    print(json.dumps(_document(settings, curve), indent=2, allow_nan=False) if as_json else _text(title, curve))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(_page(title, curve), "utf-8")
        print(f"curve: {output}", file=sys.stderr)


def _title(settings: Settings, span: LrRange) -> str:
    names = {key: settings.plain(key)["name"] for key in ("model", "optimizer", "transfer")}
    return (
        f"{names['model']}, optimizer {names['optimizer']}, transfer {names['transfer']}: {span.num_steps} steps of "
        f"{settings.plain('train')['batch_size']} images, "
        f"optimizer.lr from {significant(span.low)} to {significant(span.high)}"
    )


def _document(settings: Settings, curve: Curve) -> dict[str, Any]:
    return {
        "model": settings.plain("model")["name"],
        "optimizer": settings.plain("optimizer")["name"],
        "transfer": settings.plain("transfer")["name"],
        "batch_size": settings.plain("train")["batch_size"],
        "from": curve.span.low,
        "to": curve.span.high,
        "num_steps": curve.span.num_steps,
        "beta": curve.span.beta,
        "ended": curve.end,
        "steepest_lr": None if curve.steepest is None else curve.steepest.lr,
        "minimum_lr": curve.minimum.lr,
        "recommended_lr": curve.recommended,
        "steps": [step._asdict() for step in curve.steps],
    }


def _text(title: str, curve: Curve) -> str:
    return "\n".join([title, "", *_table(curve), "", *_findings(curve)])


def _table(curve: Curve) -> list[str]:
    """Evenly chosen steps; the bars make a curve of them, cut off where the loss is higher than before its minimum."""
    chosen = np.unique(np.linspace(0, len(curve.steps) - 1, ROWS).round().astype(int))
    highest = max(step.smoothed for step in curve.steps[: curve.steps.index(curve.minimum) + 1]) or 1.0
    lines = [f"{'optimizer.lr':>12}  {'smoothed loss':>13}", "─" * (29 + BAR)]
    for step in (curve.steps[i] for i in chosen):
        length = round(BAR * step.smoothed / highest)
        bar = "█" * length if length <= BAR else "█" * BAR + "…"
        lines.append(f"{significant(step.lr, 3):>12}  {figure(step.smoothed):>13}  {bar}".rstrip())
    return lines


def _findings(curve: Curve) -> list[str]:
    """Sentences: how the test ended, what was found, what is recommended."""
    first, lowest, steepest = curve.steps[0], curve.minimum, curve.steepest
    end = (
        f"The test ended at {curve.end}."
        if curve.end
        else f"The test went on to its end, {significant(curve.span.high)}."
    )
    if steepest is None:
        return [
            end,
            "The loss never fell, so nothing is recommended: lower --from, take more --steps, or check the data.",
        ]
    found = (
        f"The smoothed loss fell from {figure(first.smoothed)} to {figure(lowest.smoothed)} "
        f"at {significant(lowest.lr, 2)}, fastest at {significant(steepest.lr, 2)}."
    )
    more = ["It was still falling at the end: a higher --to may find a higher rate."] if curve.still_falling else []
    return [
        end,
        found,
        *more,
        f"Recommended: optimizer.lr={significant(curve.recommended, 2)}, "
        f"the lowest loss's rate / {significant(MARGIN)}.",
    ]


def _page(title: str, curve: Curve) -> str:
    """The curve as an HTML page that loads nothing."""
    lrs, smoothed = [step.lr for step in curve.steps], [step.smoothed for step in curve.steps]
    lines = [Line("loss of a batch", lrs, [step.loss for step in curve.steps], "thin")]
    lines.append(Line("smoothed loss", lrs, smoothed, "first"))
    if curve.steepest is not None:
        lines.append(Line("falls fastest", [curve.steepest.lr], [curve.steepest.smoothed], "point"))
    chart = line_chart(
        title,
        lines,
        Axis.around("optimizer.lr", [*lrs, curve.recommended or lrs[0]], may_be_log=True),
        Axis.around("loss, nats", [0.0, *smoothed]),
        alt=" ".join(_findings(curve)),
        mark=None
        if curve.recommended is None
        else (curve.recommended, f"optimizer.lr={significant(curve.recommended, 2)}"),
    )
    style = Markup(files("retinue.reports").joinpath("style.css").read_text("utf-8"))
    sentences = Markup("\n").join(Markup("<p>{}</p>").format(sentence) for sentence in _findings(curve))
    return _PAGE.format(title=title, style=style, sentences=sentences, chart=chart.svg)
