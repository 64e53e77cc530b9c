"""The command `retinue`: what is not a stage."""

from contextlib import chdir
from pathlib import Path

import click

from retinue import artifacts
from retinue.config import compose as compose_settings
from retinue.config import compose_to, project_root
from retinue.errors import RetinueError
from retinue.stage import explained


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="retinue")
def main() -> None:
    """Declarative image classification: settings in conf/, stages in dvc.yaml, results under `dvc repro`."""


@main.command()
@click.argument("overrides", nargs=-1)
@click.option("--check", is_flag=True, help="Change nothing; fail if params.yaml is not this composition.")
def compose(overrides: tuple[str, ...], check: bool) -> None:
    """Freeze the composition of conf/ in params.yaml, which is what `dvc repro` reads.

    OVERRIDES are Hydra's: a choice (model=resnet18), a value (optimizer.lr=0.01), a recipe (experiment=hymenoptera).
    """
    with explained("compose"):
        target = project_root() / "params.yaml"
        composed = target.with_name(".params.partial.yaml")
        try:
            compose_to(composed, overrides)
            text = composed.read_text("utf-8")
        finally:
            composed.unlink(missing_ok=True)
        if check:
            if not target.exists() or target.read_text("utf-8") != text:
                raise RetinueError("params.yaml is not the composition of conf/. Run `retinue compose`.")
            return
        target.write_text(text, "utf-8")
        print(f"{target}: composed from conf/ with {' '.join(overrides) or 'no overrides'}. Now `dvc repro`.")


@main.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
def plots_page(target: Path) -> None:
    """Write to TARGET the page that `dvc plots show` fills, with all its JavaScript inside: it works offline."""
    from retinue.plots_page import write_template

    with explained("plots-page"):
        write_template(target)


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--bundle", default=artifacts.MODEL, show_default=True, type=click.Path(path_type=Path))
@click.option("--shorter-side", type=int, help="Size of the images, px.  [default: 12/7 of the training size]")
@click.option("--stride", type=int, help="Px from one position to the next.  [default: the network's]")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Folder for class maps and overlays.")
@click.option("--compare", is_flag=True, help="Score single crops, too: the time they take, and the difference.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def dense(
    images: tuple[Path, ...],
    bundle: Path,
    shorter_side: int | None,
    stride: int | None,
    output: Path | None,
    compare: bool,
    as_json: bool,
) -> None:
    """Score IMAGES larger than those of the training, each at all its positions in one pass (docs/dense.md)."""
    from retinue.dense.command import Dense, run

    with explained("dense"):
        scorer = Dense.create(bundle, shorter_side=shorter_side, stride=stride, output=output, crops=compare)
        run(scorer, images, as_json=as_json)


@main.command()
@click.argument("overrides", nargs=-1)
@click.option("--classes", type=int, default=10, show_default=True, help="Number of classes; two are one logit.")
@click.option("--image-size", type=int, help="Side of the images, px.  [default: preprocess.image_size]")
@click.option("--channels", type=int, help="1 (gray) or 3 (RGB).  [default: preprocess.channels]")
@click.option("--batch-size", type=int, help="Images of a training step.  [default: train.batch_size]")
@click.option("--measure", is_flag=True, help="Also train two steps in a process of their own: memory and time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def describe(
    overrides: tuple[str, ...],
    classes: int,
    image_size: int | None,
    channels: int | None,
    batch_size: int | None,
    measure: bool,
    as_json: bool,
) -> None:
    """Show a network layer by layer, with what it costs (docs/describe.md).

    OVERRIDES are Hydra's, as for compose: model=resnet50 preprocess=rgb224 optimizer=sgd. Nothing is downloaded,
    no data is read, and without --measure nothing is computed.
    """
    with explained("describe"):
        composition = compose_settings(overrides)
        from retinue.description.command import run

        sizes = {"num_classes": classes, "channels": channels, "image_size": image_size, "batch_size": batch_size}
        run(composition, sizes, with_measure=measure, as_json=as_json)


@main.command()
@click.argument("overrides", nargs=-1)
@click.option("--from", "low", type=float, default=1e-6, show_default=True, help="First optimizer.lr.")
@click.option("--to", "high", type=float, default=1.0, show_default=True, help="Last optimizer.lr.")
@click.option("--steps", type=int, default=100, show_default=True, help="Optimizer steps from the one to the other.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="HTML file for the curve.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def lr_range(
    overrides: tuple[str, ...], low: float, high: float, steps: int, output: Path | None, as_json: bool
) -> None:
    """Train with a growing learning rate, and say which one to choose (docs/lr_range.md).

    OVERRIDES are Hydra's, as for compose: model=resnet18 optimizer=sgd. The images are those that preprocess and
    augment made. What is trained is thrown away, and nothing is written but --output.
    """
    with explained("lr-range"):
        composition = compose_settings(overrides)
        from retinue.training.lr_range import Span
        from retinue.training.lr_range_command import run

        span, target = Span(low, high, steps), output and output.absolute()
        with chdir(project_root()):
            run(composition, span, output=target, as_json=as_json)


@main.command()
def where() -> None:
    """Print where the results of the last run are."""
    with explained("where"):
        root = project_root()
        if not (root / artifacts.REPORT).exists():
            raise RetinueError(f"{artifacts.REPORT}: no report yet. Run `dvc repro`.")
        print(f"report   {(root / artifacts.REPORT).as_uri()}")
        print(f"metrics  {artifacts.METRICS}  (dvc metrics show)")
        print(f"model    {artifacts.MODEL}/")


if __name__ == "__main__":
    main()
