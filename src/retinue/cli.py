"""The command `retinue`: what is not a stage."""

import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import click

from retinue.pipeline.interruption import end_at_once

if Path(sys.argv[0]).name == "retinue" or __name__ == "__main__":
    end_at_once("retinue")  # before the other imports, which take a second

from retinue.pipeline import artifacts
from retinue.pipeline.checked import with_found_faults
from retinue.pipeline.composition import Composition, project_root, stages_to_run
from retinue.pipeline.composition import compose as compose_settings
from retinue.pipeline.ending import explained
from retinue.pipeline.errors import RetinueError, SettingsFaults
from retinue.pipeline.running import refuse_while_running
from retinue.pipeline.watched import refuse_unreadable


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="retinue")
def main() -> None:
    """Declarative image classification: settings in conf/, stages in dvc.yaml, results under `dvc repro`."""


@main.command()
@click.argument("overrides", nargs=-1)
@click.option("--check", is_flag=True, help="Change nothing; fail if params.yaml is not this composition.")
def compose(overrides: tuple[str, ...], check: bool) -> None:
    """Freeze the composition of conf/ in params.yaml, which is what `dvc repro` reads, and say what it will run.

    OVERRIDES are Hydra's: a choice (model=resnet18), a value (optimizer.lr=0.01), a recipe (experiment=hymenoptera).
    A path is taken as it stands (source.path='my photos (1)'); ~ is the home folder. All settings are checked first
    (docs/settings.md): what is wrong is said at once, and then params.yaml stays as it was. It stays, too, while a
    stage runs: dvc.lock would record the new settings beside a result of the old ones.
    """
    with explained("compose"):
        root = project_root()
        target = root / "params.yaml"
        composition = Composition.create(overrides)
        with chdir(root):
            faults = with_found_faults(composition.faults, composition.values())
        if faults:
            raise SettingsFaults(faults)
        text = composition.text
        if check:
            if not target.exists() or target.read_text("utf-8") != text:
                raise RetinueError("params.yaml is not the composition of conf/. Run `retinue compose`.")
            return
        with chdir(root):
            refuse_while_running()
        partial = target.with_name(".params.partial.yaml")
        partial.write_text(text, "utf-8")
        partial.replace(target)
        print(f"{target}: composed from conf/ with {' '.join(overrides) or 'no overrides'}.", flush=True)
        if sys.stderr.isatty():
            print("dvc looks at the inputs, to say what it will run …", file=sys.stderr, flush=True)
        try:
            with chdir(root):
                refuse_unreadable(composition.values())
            stale, fresh = stages_to_run(root)
        except RetinueError as error:
            print(f"warning: dvc cannot say what it will run: {error}", file=sys.stderr)
            return
        if not stale:
            print("dvc repro will run nothing: all stages are up to date.")
            return
        rest = f" ({', '.join(fresh)} {'is' if len(fresh) == 1 else 'are'} up to date)" if fresh else ""
        print(f"dvc repro will run: {', '.join(stale)}{rest}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the experiment.  [default: that of the folder]")
@click.option("--run", "go_on", is_flag=True, help="Go on: compose the experiment and run the pipeline to its report.")
def init(folder: Path, name: str | None, go_on: bool) -> None:
    """Look at FOLDER, say what is in it, and write an experiment for it to conf/experiment/ (docs/sources.md)."""
    with explained("init"):
        from retinue.sources.proposal import run

        experiment = f"experiment={run(folder, name)}"
        if not go_on:
            print(f"Next:\n  retinue compose {experiment}\n  dvc repro")
            return
    assert compose.callback is not None
    compose.callback((experiment,), check=False)
    sys.exit(subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=project_root(), check=False).returncode)


@main.command()
@click.argument("overrides", nargs=-1)
def sweep(overrides: tuple[str, ...]) -> None:
    """Run a Hydra multirun in which every trial is a DVC experiment (docs/sweeps.md).

    OVERRIDES are Hydra's. Values with commas vary (model=lenet5,resnet18), an interval is drawn from
    (optimizer.lr=tag(log,interval(0.0001,0.1)) sweep.search=tpe sweep.trials=20), sweep=NAME takes a recipe of
    conf/sweep/. The same command goes on where it was ended. Exit status 1: a trial failed.
    """
    with explained("sweep"):
        from retinue.sweeps.command import run

        table = run(overrides)
        print(table.text())
        if table.failed():
            sys.exit(1)


@main.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
def plots_page(target: Path) -> None:
    """Write to TARGET the page that `dvc plots show` fills, with all its JavaScript inside: it works offline."""
    from retinue.dashboard.plots_page import write_template

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
def sliding(
    images: tuple[Path, ...],
    bundle: Path,
    shorter_side: int | None,
    stride: int | None,
    output: Path | None,
    compare: bool,
    as_json: bool,
) -> None:
    """Score IMAGES larger than those of the training, each at all its positions in one pass (docs/sliding.md)."""
    from retinue.sliding.command import SlidingScorer, run

    with explained("sliding"):
        scorer = SlidingScorer.create(bundle, shorter_side=shorter_side, stride=stride, output=output, crops=compare)
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
        from retinue.describe.command import run

        sizes = {"num_classes": classes, "channels": channels, "image_size": image_size, "batch_size": batch_size}
        run(composition, sizes, with_measure=measure, as_json=as_json)


@main.command()
@click.argument("overrides", nargs=-1)
@click.option(
    "--images", type=click.IntRange(1, 24), default=6, show_default=True, help="Images, spread over the classes."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="preview.html",
    show_default=True,
    help="The page.",
)
def preview(overrides: tuple[str, ...], images: int, output: Path) -> None:
    """Write one offline page that shows what preprocess and augment make of images (docs/augmentation.md).

    OVERRIDES are Hydra's, as for compose: augment=randaugment preprocess.image_size=128. The images are read from the
    source itself, so that no stage has to have run.
    """
    with explained("preview"):
        composition = compose_settings(overrides)
        from retinue.dashboard.preview import run

        target = output.absolute()
        with chdir(project_root()):
            run(composition, images=images, output=target)


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
        from retinue.lr_range.command import run
        from retinue.lr_range.measurement import LrRange

        span, target = LrRange(low, high, steps), output and output.absolute()
        with chdir(project_root()):
            run(composition, span, output=target, as_json=as_json)


@main.command()
@click.argument("name")
@click.option("--online", is_flag=True, help="Ask the W&B server for its runs, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def lineage(name: str, online: bool, as_json: bool) -> None:
    """Print the commit, experiment, W&B runs and data hashes that belong to NAME (docs/rerun.md).

    NAME is a DVC experiment, a settings fingerprint, a W&B run of this machine (its id or folder) or one of the server
    (entity/project/id).
    """
    with explained("lineage"):
        from retinue.lineage.command import run

        run(name, online=online, as_json=as_json)


@main.command()
@click.argument("name")
@click.option("--tolerance", type=float, default=0.0, show_default=True, help="Largest difference that is none.")
@click.option("--shared-cache", is_flag=True, help="Take from this checkout's DVC cache what it holds.")
@click.option("--anyway", is_flag=True, help="Go on where the code or an input is not as it was.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the clone.  [default: a temporary one]")
def rerun(name: str, tolerance: float, shared_cache: bool, anyway: bool, keep: Path | None) -> None:
    """Compute the recorded result NAME again in a clean clone and compare the metrics (docs/rerun.md).

    NAME is that of `retinue lineage`. The exit status is 1 where a number differs.
    """
    with explained("rerun"):
        from retinue.lineage.rerun import run

        if not run(name, tolerance=tolerance, shared_cache=shared_cache, anyway=anyway, keep=keep):
            sys.exit(1)


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print what would be sent; no server is needed.")
def workspace(file: Path | None, as_json: bool) -> None:
    """Send the W&B workspace and report that FILE describes (default: wandb.yaml), and print their addresses."""
    with explained("workspace"):
        from retinue.tracking.workspace import run

        run(file or project_root() / "wandb.yaml", as_json=as_json)


@main.command()
@click.argument("names", nargs=-1)
@click.option(
    "--output", type=click.Path(path_type=Path), help="The page (.html), or its folder.  [default: dashboard]"
)
@click.option("--baseline", metavar="REV", help="A commit to be compared, too, such as HEAD.")
@click.option(
    "--images", type=click.IntRange(min=0), default=8, show_default=True, help="Explained images of each set."
)
@click.option("--latency", is_flag=True, help="Load every network and time it on this machine.")
def dashboard(names: tuple[str, ...], output: Path | None, baseline: str | None, images: int, latency: bool) -> None:
    """Write one offline page that compares the DVC experiments NAMES, all without any (docs/dashboard.md)."""
    with explained("dashboard"):
        from retinue.dashboard.command import run

        target = output.absolute() if output else project_root() / "dashboard"
        run(names, output=target, baseline=baseline, images=images, with_latency=latency)


@main.command()
def where() -> None:
    """Print where the results of the last run are; of those that are of other settings, why they do not count."""
    with explained("where"):
        root = project_root()
        places = {
            artifacts.REPORT: ("report ", (root / artifacts.REPORT).as_uri()),
            artifacts.METRICS: ("metrics", f"{artifacts.METRICS}  (dvc metrics show)"),
            artifacts.MODEL: ("model  ", f"{artifacts.MODEL}/"),
        }
        missing = {path for path in places if not (root / path).exists()}
        if missing == {*places}:
            raise RetinueError(f"{artifacts.REPORT}: no report yet. Run `dvc repro`.")
        from retinue.experiments.outcomes import Workspace

        lock = Workspace().lock()
        for path, (name, place) in places.items():
            why_not = "not made yet; `dvc repro` makes it" if path in missing else lock.why_not(path)
            print(f"{name}  {why_not or place}")


if __name__ == "__main__":
    main()
