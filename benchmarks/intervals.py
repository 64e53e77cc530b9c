"""Writes the tables of docs/evaluation.md: how often intervals hold the truth, how wide they are, how long they take.

`python -m benchmarks.intervals --page docs/evaluation.md`, or one part with `--only`.
"""

import re
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import click
import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.interval_coverage import RESAMPLES, Held, bootstrap_coverage, coverage
from benchmarks.interval_models import SeveralClasses, TwoClasses
from benchmarks.pairing import timed
from retinue.metrics import per_class, scalar
from retinue.metrics.metric_intervals import auc_intervals
from retinue.pipeline.numbers import figure, significant

AUCS = (0.6, 0.8, 0.95, 0.99)
SUPPORTS = (
    *((1, 49), (1, 200), (2, 98), (3, 150), (4, 40), (4, 196)),
    *((5, 50), (5, 245), (10, 10), (10, 490), (20, 3), (50, 5), (50, 50), (50, 2450), (100, 20), (500, 500)),
    (500, 24_500),
)
GROUPED = ((10, 50), (25, 25), (50, 450), (200, 200))
UNIT_SIZE, SHARED = 5, 0.5
SEVERAL = ((5, 20, 75), (10,) * 5, (100,) * 3)
SHIFTS = (1.0, 3.0)
SHOWN_WIDTHS = ("AUC", "AP", "accuracy", "sensitivity")
MANY_IMAGES = 10_000
SIZES = ((100_000, 10), (1_000_000, 2))
LOOPS = 1_000


def coverage_tables(samples: int, workers: int) -> Iterator[str]:
    """The lines of all coverage tables; more than MANY_IMAGES and the bootstrap take a tenth of the samples."""
    single = [TwoClasses(m, n, auc) for m, n in SUPPORTS for auc in AUCS]
    grouped = [
        TwoClasses(m, n, auc, UNIT_SIZE, SHARED, mixed)
        for m, n in GROUPED
        for auc in AUCS[1:]
        for mixed in (False, True)
    ]
    calibrated = [
        TwoClasses(m, n, auc, overconfidence=1.0) for m, n in ((5, 245), (50, 50), (500, 500)) for auc in AUCS
    ]
    several = [SeveralClasses(support, shift) for support in SEVERAL for shift in SHIFTS]
    with ProcessPoolExecutor(workers) as pool:
        mapped = partial(pool.map, partial(_held, samples)), partial(pool.map, partial(_bootstrapped, samples))
        of_single, peers = (list(each(single)) for each in mapped)
        yield (
            f"Coverage of 95 % intervals, {figure(samples)} simulated test splits a row (a tenth of them for the "
            f"bootstrap, and with more than {figure(MANY_IMAGES)} images), single images:\n"
        )
        yield from _coverage_table(single, of_single)
        yield "\nMean width, ours and that of the percentile bootstrap, and how often the latter holds the truth:\n"
        yield from _width_table(single, of_single, peers)
        of_grouped, peers = (list(each(grouped)) for each in mapped)
        yield "\nUnits of 1 to 9 images, of one class or of both:\n"
        yield from _coverage_table(grouped, of_grouped)
        yield "\nThe bootstrap over images, which does not know of units, beside them:\n"
        yield from _width_table(grouped, of_grouped, peers)
        of_calibrated, of_several = (list(mapped[0](models)) for models in (calibrated, several))
        least = min(each["calibration error"].coverage for each in of_calibrated)
        yield f"\nWhere probabilities are right, the calibration error is 0, which its interval holds in {least:.3f}.\n"
        yield "Several classes, one logit higher than the others by the shift; coverage (mean width):\n"
        yield from _several_table(several, of_several)
    found = [
        of for group in (of_single, of_grouped, of_calibrated, of_several) for each in group for of in each.values()
    ]
    yield (
        f"\nThe least coverage of all is {min(of.coverage for of in found):.3f}, the narrowest interval "
        f"{significant(min(of.least for of in found), 2)} wide."
    )


def speed_table() -> Iterator[str]:
    """The lines of the table of times and memory; the loop is timed for few resamples, and told so."""
    yield "| images | classes | all AUCs and intervals | loop over scikit-learn, 1,000 resamples | ratio | memory |"
    yield "|---|---|---|---|---|---|"
    for images, classes in SIZES:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, classes, images)
        scores = rng.normal(size=(images, classes)) + np.eye(classes)[labels]
        units = np.arange(images)
        loops = 3
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the loop, whose peak would hide ours, is later
        ours = min(timed(partial(_ours, labels, scores, units)) for _ in range(3))
        added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        peer = timed(partial(_loop, labels, scores, loops)) / loops * LOOPS
        yield (
            f"| {figure(images)} | {classes} | {significant(ours, 3)} s | {significant(peer, 3)} s (from {loops}) | "
            f"{significant(peer / ours, 3)} | {figure(added // 1024)} MiB |"
        )


def _ours(labels: np.ndarray, scores: np.ndarray, units: np.ndarray) -> None:
    per_class.auc_score(labels, scores)
    scalar.micro_auc_score(labels, scores)
    auc_intervals(labels, scores, units, confidence_level=0.95)


def _loop(labels: np.ndarray, scores: np.ndarray, loops: int) -> None:
    """AUC of images drawn with replacement; of several classes each against the rest, and their mean."""
    rng = np.random.default_rng(0)
    for _ in range(loops):
        rows = rng.integers(0, len(labels), len(labels))
        drawn, given = labels[rows], scores[rows]
        if scores.shape[1] == 2:
            roc_auc_score(drawn, given[:, 1])
        else:
            roc_auc_score(np.eye(scores.shape[1])[drawn], given, average=None)


def _held(samples: int, model: TwoClasses | SeveralClasses) -> dict[str, Held]:
    return coverage(model, _samples(model, samples), seed=1)


def _bootstrapped(samples: int, model: TwoClasses) -> dict[str, Held]:
    return bootstrap_coverage(model, max(2, _samples(model, samples) // 10), seed=1)


def _samples(model: TwoClasses | SeveralClasses, samples: int) -> int:
    is_large = isinstance(model, TwoClasses) and model.positives + model.negatives > MANY_IMAGES
    return max(2, samples // 10) if is_large else samples


def _coverage_table(models: Sequence[TwoClasses], held: Sequence[dict[str, Held]]) -> Iterator[str]:
    names = [*held[0]]
    yield f"| positives | negatives | AUC | {' | '.join(names)} |\n|---|---|---|{'---|' * len(names)}"
    for model, each in zip(models, held, strict=True):
        yield f"{_begun(model)} {' | '.join(_share(each[name].coverage) for name in names)} |"


def _width_table(
    models: Sequence[TwoClasses], held: Sequence[dict[str, Held]], peers: Sequence[dict[str, Held]]
) -> Iterator[str]:
    heads = [f"{name}: ours | bootstrap" for name in SHOWN_WIDTHS]
    yield f"| positives | negatives | AUC | {' | '.join(heads)} |\n|---|---|---|{'---|---|' * len(heads)}"
    for model, ours, peer in zip(models, held, peers, strict=True):
        cells = [
            f"{ours[name].width:.3f} | {peer[name].width:.3f} ({_share(peer[name].coverage)})" for name in SHOWN_WIDTHS
        ]
        yield f"{_begun(model)} {' | '.join(cells)} |"


def _several_table(models: Sequence[SeveralClasses], held: Sequence[dict[str, Held]]) -> Iterator[str]:
    names = [*held[0]]
    yield f"| images of each class | shift | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}"
    for model, each in zip(models, held, strict=True):
        cells = [f"{_share(each[name].coverage)} ({significant(each[name].width, 2)})" for name in names]
        yield f"| {', '.join(map(str, model.support))} | {model.shift:g} | {' | '.join(cells)} |"


def _begun(model: TwoClasses) -> str:
    kind = "" if model.unit_size == 1 else ", mixed units" if model.is_mixed else ", units of one class"
    return f"| {figure(model.positives)} | {figure(model.negatives)} | {model.auc}{kind} |"


def _share(coverage: float) -> str:
    return f"{coverage:.3f}"


def _write(page: Path, part: str, lines: Sequence[str]) -> None:
    """Puts `lines` between the markers of `part` of the page."""
    begin, end = f"<!-- {part}: made by `python -m benchmarks.intervals` -->", f"<!-- end of {part} -->"
    text = page.read_text("utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise click.ClickException(f"{page} has no lines {begin!r} and {end!r}.")
    made = "\n".join([begin, *lines, end])
    page.write_text(pattern.sub(lambda _: made, text), "utf-8")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", type=click.Choice(["coverage", "speed"]), help="One part; both without.")
@click.option("--samples", default=2000, show_default=True, help="Simulated test splits for each row.")
@click.option("--workers", default=2, show_default=True, help="Processes of the simulation.")
@click.option("--page", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Written into this file.")
def main(only: str | None, samples: int, workers: int, page: Path | None) -> None:
    """Measure coverage, width and speed of the intervals of evaluate."""
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "speed": speed_table,
        "coverage": partial(coverage_tables, samples, workers),
    }
    for part, make in parts.items():
        if only in (None, part):
            begun, lines = time.perf_counter(), []
            for line in make():
                print(line, flush=True)
                lines.append(line)
            print(f"\n({part}: {significant(time.perf_counter() - begun, 3)} s; bootstrap of {RESAMPLES} resamples)\n")
            if page:
                _write(page, part, lines)


if __name__ == "__main__":
    main()
