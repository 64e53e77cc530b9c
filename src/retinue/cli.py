"""The command `retinue`: what is not a stage."""

import sys
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

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
from retinue.pipeline.watched import refuse_missing_corrections, refuse_unreadable


class CommandsBySection(click.Group):
    """Lists its commands by what they are for, with a line for each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections: dict[str, list[str]] = {"Settings": [], "Run": [], "Look": [], "Use": [], "Team": []}

    def command(  # type: ignore[override] # click overloads it for use without brackets
        self, *args: Any, section: str = "Other", **kwargs: Any
    ) -> Callable[[Callable[..., Any]], click.Command]:
        """Adds a command as click does; `section` is the heading under which it is listed."""
        decorate = super().command(*args, **kwargs)

        def added(function: Callable[..., Any]) -> click.Command:
            command: click.Command = decorate(function)
            assert command.name is not None
            self.sections.setdefault(section, []).append(command.name)
            return command

        return added

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands of each section in the order of the file."""
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(60)) for name in names])


@click.group(cls=CommandsBySection, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="retinue")
def main() -> None:
    """Declarative image classification: settings in conf/, stages in dvc.yaml, results under `dvc repro`."""


@main.command(section="Settings", short_help="Freeze settings in params.yaml, which `dvc repro` reads")
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
                refuse_missing_corrections()
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


@main.command(section="Settings", short_help="Look at a folder of images, write an experiment for it")
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
    assert repro.callback is not None
    compose.callback((experiment,), check=False)
    repro.callback(())


@main.command(
    section="Run",
    short_help="Run `dvc repro` with stages that start at once",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def repro(arguments: tuple[str, ...]) -> None:
    """Run `dvc repro` with stages that start at once: they are forks of one process (docs/architecture.md).

    ARGUMENTS are those of `dvc repro`: --force, --single-item, train. What comes of it is the same, in less time where
    several stages run.
    """
    with explained("repro"):
        from retinue.forkserver.repro import run

        root = project_root()
        with chdir(root):
            refuse_missing_corrections()
        status = run(arguments, root)
    sys.exit(status if status >= 0 else 128 - status)


@main.command(section="Run", short_help="Try many settings, each trial a DVC experiment")
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
        if table.sweep.varies_folds:
            from retinue.dashboard.folds import of_sweep

            of_sweep(table.sweep.name, output=project_root() / "folds")
        if table.failed():
            sys.exit(1)


@main.command(section="Look", short_help="Write the page that `dvc plots show` fills")
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
def plots_page(target: Path) -> None:
    """Write to TARGET the page that `dvc plots show` fills, with all its JavaScript inside: it works offline."""
    from retinue.dashboard.plots_page import write_template

    with explained("plots-page"):
        write_template(target)


@main.command(section="Use", short_help="Score images larger than those of the training")
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
    from retinue.serving.sliding.command import SlidingScorer, run

    with explained("sliding"):
        scorer = SlidingScorer.create(bundle, shorter_side=shorter_side, stride=stride, output=output, crops=compare)
        run(scorer, images, as_json=as_json)


@main.command(section="Use", short_help="Predict files, folders, tables and lists of images")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="File.csv, .jsonl or .parquet.  [default: stdout]"
)
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the model.  [default: models]")
@click.option("--rev", help="The model of this DVC experiment, branch, tag or commit instead.")
@click.option("--exported", type=click.Path(path_type=Path), help="The model in this ONNX file of `retinue export`.")
@click.option("--overlays", type=click.Path(path_type=Path, file_okay=False), help="Folder for a map over each image.")
@click.option("--explain", "explainer", default="gradcam", show_default=True, help="What makes the maps.")
@click.option("--column", help="Column of the paths in a table.  [default: found by its name]")
@click.option(
    "--unreadable",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV of what could not be read.  [default: beside --output]",
)
@click.option(
    "--unreadable-status",
    type=click.IntRange(0, 255),
    default=3,
    show_default=True,
    help="Exit status where an image could not be read.",
)
@click.option("--batch-size", type=click.IntRange(1, 100_000), default=32, show_default=True)
@click.option("--workers", "num_workers", type=click.IntRange(0, 256), help="Decoding processes.  [default: by cores]")
@click.option("--device", default="cpu", show_default=True, help="torch's name of what computes.")
def predict(
    images: tuple[str, ...],
    bundle: Path | None,
    rev: str | None,
    exported: Path | None,
    unreadable_status: int,
    **options: Any,
) -> None:
    """Predict IMAGES: files, folders, tables, 'patterns/**/*.jpg', or - for a list on stdin (docs/predict.md).

    Each gets a row with its class, decided at the model's operating point, calibrated probabilities and whether the
    model abstains. The same command goes on where it was ended. What cannot be read goes to a list of its own.
    """
    _check_one_model(bundle, rev, exported)
    with explained("predict"):
        from retinue.serving.models import load_model
        from retinue.serving.predict.command import PredictOptions, run
        from retinue.serving.predict.predicting_models import BundlePredicts, ExportPredicts, PredictingModel

        how = PredictOptions(**options)
        explainer = how.explainer if how.overlays else None
        model: PredictingModel
        if exported is not None:
            model = ExportPredicts.prepared(exported, device=how.device, explainer=explainer)
        else:
            model = BundlePredicts.prepared(load_model(bundle, rev), device=how.device, explainer=explainer)
        if run(model, images, how):
            sys.exit(unreadable_status)


@main.command(section="Use", short_help="Write the model as ONNX or torch.export")
@click.argument("kind", type=click.Choice(["onnx", "pt2"]))
@click.option("--bundle", default=artifacts.MODEL, show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default="exported",
    show_default=True,
    help="Folder; the file and export.json go to KIND in it.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of images to compare on.  [default: the test split]",
)
@click.option("--licence", help="Of the weights, to be told in the file: a name, as SPDX has it, or a sentence.")
@click.option("--any-size", is_flag=True, help="Also write a file that resizes images itself, within one level of 255.")
@click.option("--int8", is_flag=True, help="Also write an ONNX file that computes in 8 bits, where that costs little.")
def export(
    kind: str, bundle: Path, output: Path, images: Path | None, licence: str | None, any_size: bool, int8: bool
) -> None:
    """Write the bundle as one file of KIND, onnx or pt2, for other runtimes (docs/export.md).

    The file is compared with the bundle on the test split. One that decides otherwise for any image, or whose logits
    differ by more than 0.0001, is not kept: exit status 1.
    """
    with explained("export"):
        from retinue.serving.export.command import run

        run(kind, bundle, output, images=images, licence=licence, any_size=any_size, int8=int8)


@main.command(section="Use", short_help="Serve the model over HTTP, with a page to try it on")
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the model.  [default: models]")
@click.option("--rev", help="The model of this DVC experiment, branch, tag or commit instead.")
@click.option("--exported", type=click.Path(path_type=Path), help="ONNX file of `retinue export`; takes no torch.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address or name to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--device", default="cpu", show_default=True, help="torch's name of what computes.")
@click.option("--explain", "explainer", default="gradcam", show_default=True, help="What makes the maps.")
@click.option(
    "--max-batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images of a forward pass."
)
@click.option(
    "--max-delay-ms",
    type=click.FloatRange(0, 60_000),
    default=5.0,
    show_default=True,
    help="Longest wait of an image for others, while the network is idle.",
)
@click.option("--decoders", type=click.IntRange(1, 256), help="Decoding processes.  [default: by cores]")
@click.option(
    "--max-queue",
    type=click.IntRange(1, 1_000_000),
    default=256,
    show_default=True,
    help="Images decoded, waiting or computed; beyond, requests are refused.",
)
@click.option(
    "--max-client-images",
    type=click.IntRange(1, 1_000_000),
    help="The same of one client, told by its address.  [default: no limit]",
)
@click.option(
    "--training-images",
    type=click.Path(path_type=Path),
    help="Training split, as data/processed/train; shows those nearest to an image.",
)
@click.option(
    "--max-images", type=click.IntRange(1, 100_000), default=32, show_default=True, help="Images of one request."
)
@click.option(
    "--max-body-mb", type=click.FloatRange(0.001, 2000), default=32.0, show_default=True, help="Size of one request."
)
@click.option(
    "--max-pending-mb",
    type=click.FloatRange(0.001, 1e6),
    default=256.0,
    show_default=True,
    help="Size of all requests that are held at once.",
)
@click.option(
    "--read-timeout-s",
    type=click.FloatRange(0.1, 3600),
    default=30.0,
    show_default=True,
    help="Longest time of a body to arrive.",
)
@click.option(
    "--head-timeout-s",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Longest time of the head of a request to arrive.",
)
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with the key that requests must have.")
@click.option("--tls-certificate", type=click.Path(path_type=Path), help="PEM file; serves HTTPS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM file of its private key.")
def serve(bundle: Path | None, rev: str | None, exported: Path | None, decoders: int | None, **options: Any) -> None:
    """Serve a trained model over HTTP, with a page to try it on (docs/serve.md).

    Images of many requests share a forward pass. SIGTERM and Ctrl-C end it after every accepted request; SIGHUP loads
    the model anew without a gap. It needs the extra `serve`: pip install 'retinue[serve]'.
    """
    _check_one_model(bundle, rev, exported)
    with explained("serve"):
        from retinue.serving.cores import usual_decoders
        from retinue.serving.serve.command import run_bundle, run_exported
        from retinue.serving.serve.options import ServeOptions

        how = ServeOptions(decoders=decoders or usual_decoders(), **options)
        if exported is not None:
            run_exported(exported, how)
            return
        from retinue.serving.models import model_folder

        run_bundle(partial(model_folder, bundle, rev), how)


def _check_one_model(bundle: Path | None, rev: str | None, exported: Path | None) -> None:
    named = [name for name, value in (("--bundle", bundle), ("--rev", rev), ("--exported", exported)) if value]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} name {len(named)} models. Give one of them.")


@main.command(section="Settings", short_help="Show a network layer by layer, with what it costs")
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


@main.command(section="Settings", short_help="Show what becomes of images before the network")
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


@main.command(section="Look", short_help="Find the training images nearest to an image")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--index",
    type=click.Choice(["head", "colour", "both"]),
    default="both",
    show_default=True,
    help="Compare what the network's last layer is given, or colours.",
)
@click.option(
    "-k", "count", type=click.IntRange(1, 100), default=8, show_default=True, help="Training images found for each."
)
@click.option("--bundle", default=artifacts.MODEL, show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="similar.html",
    show_default=True,
    help="The page.",
)
@click.option("--score", is_flag=True, help="Also look for every test image, and say how often the label is right.")
@click.option("--device", default="cpu", show_default=True, help="torch's name of what computes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def similar(
    images: tuple[Path, ...],
    index: str,
    count: int,
    bundle: Path,
    output: Path,
    score: bool,
    device: str,
    as_json: bool,
) -> None:
    """Find the training images nearest to IMAGES, and write one offline page that shows them (docs/similar.md)."""
    if not images and not score:
        raise click.UsageError("name an image, or --score.")
    with explained("similar"):
        from retinue.dashboard.similar import Retrieval, run
        from retinue.explainers.similar_index import INDEXES

        paths, target, folder = [path.absolute() for path in images], output.absolute(), bundle.absolute()
        with chdir(project_root()):
            retrieval = Retrieval(folder, [*INDEXES] if index == "both" else [index], device)
            run(retrieval, paths, count=count, score=score, output=target, as_json=as_json)


@main.command(section="Look", short_help="Measure the network on classes that it does not know")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--ways", type=click.IntRange(2, 1000), default=5, show_default=True, help="Classes of an episode.")
@click.option(
    "--shots",
    type=click.IntRange(1, 1000),
    multiple=True,
    default=(1, 5),
    show_default=True,
    help="Known images of each class; several times.",
)
@click.option("--queries", type=click.IntRange(1, 1000), default=15, show_default=True, help="To be told, of each.")
@click.option("--episodes", type=click.IntRange(2, 100_000), default=600, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the draws.")
@click.option("--bundle", default=artifacts.MODEL, show_default=True, type=click.Path(path_type=Path))
@click.option("--device", default="cpu", show_default=True, help="torch's name of what computes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def fewshot(folder: Path, bundle: Path, device: str, as_json: bool, **options: Any) -> None:
    """Measure n-way k-shot accuracy on the classes in FOLDER, a folder of images each (docs/fewshot.md).

    They have to be classes that the network was not trained on. A class is the mean of what the network's last layer is
    given for a few of its images; colours are measured beside that.
    """
    with explained("fewshot"):
        from retinue.bundle import Bundle
        from retinue.serving.fewshot.command import Episodes, run

        run(Bundle.load(bundle), folder, Episodes(**options), device=device, as_json=as_json)


@main.command(section="Settings", short_help="Find a learning rate before training")
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


@main.command(section="Team", short_help="Say where a result comes from: commit, runs, data")
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


@main.command(section="Team", short_help="Put the logged model into W&B's registry")
@click.argument("collection")
@click.option("--registry", default="model", show_default=True, help="Name of the registry.")
@click.option("--alias", "aliases", multiple=True, help="A further name of this version, as production; several times.")
def register(collection: str, registry: str, aliases: tuple[str, ...]) -> None:
    """Link the model of this checkout, as W&B has it, to COLLECTION of W&B's registry (docs/model_card.md).

    The model has to have been logged with its card: by a run of the pipeline with tracking=online, or by `wandb sync`.
    """
    with explained("register"):
        from retinue.tracking.registry import run

        with chdir(project_root()):
            run(collection, registry=registry, aliases=aliases)


@main.command(section="Run", short_help="Compute a recorded result again and compare the two")
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


@main.command(section="Team", short_help="Send a workspace and a report to W&B")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print what would be sent; no server is needed.")
def workspace(file: Path | None, as_json: bool) -> None:
    """Send the W&B workspace and report that FILE describes (default: wandb.yaml), and print their addresses."""
    with explained("workspace"):
        from retinue.tracking.workspace import run

        run(file or project_root() / "wandb.yaml", as_json=as_json)


@main.command(section="Look", short_help="Compare all experiments on one offline page")
@click.argument("names", nargs=-1)
@click.option(
    "--output", type=click.Path(path_type=Path), help="The page (.html), or its folder.  [default: dashboard]"
)
@click.option("--baseline", metavar="REV", help="A commit to be compared, too, such as HEAD.")
@click.option("--images", type=click.IntRange(min=0), default=8, show_default=True, help="Disputed images of each set.")
@click.option(
    "--details", type=click.IntRange(min=0), default=40, show_default=True, help="Best experiments shown in full."
)
@click.option("--reports/--no-reports", default=True, show_default=True, help="Put their reports beside the page.")
@click.option("--latency", is_flag=True, help="Load every network and time it on this machine.")
def dashboard(names: tuple[str, ...], output: Path | None, latency: bool, reports: bool, **options: Any) -> None:
    """Write one offline page that compares the DVC experiments NAMES, all without any (docs/dashboard.md)."""
    with explained("dashboard"):
        from retinue.dashboard.command import run

        target = output.absolute() if output else project_root() / "dashboard"
        run(names, output=target, with_latency=latency, with_reports=reports, **options)


@main.command(section="Look", short_help="Put the folds of a cross-validation together")
@click.argument("names", nargs=-1)
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder for the pages.  [default: folds]"
)
def folds(names: tuple[str, ...], output: Path | None) -> None:
    """Put the folds of a cross-validation together in a table, a page and a CSV (docs/cross_validation.md).

    NAMES are of DVC experiments or sweeps that vary preprocess.fold; without any, all that are complete.
    """
    with explained("folds"):
        from retinue.dashboard.folds import run

        run(names, output=output.absolute() if output else project_root() / "folds")


@main.command(section="Look", short_help="Say whether results differ on the same test images")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compare(names: tuple[str, ...], as_json: bool) -> None:
    """Say whether results differ on the same test images, and by how much (docs/baselines.md).

    NAMES are `workspace`, DVC experiments, or commits, tags and branches (HEAD, HEAD~1), two or more; without any, the
    workspace is compared with HEAD. Other test images are refused.
    """
    with explained("compare"):
        from retinue.dashboard.compare import run

        run(names, as_json=as_json)


@main.command(section="Look", short_help="Say where the results of the last run are")
def where() -> None:
    """Print where the results of the last run are, and whether they differ from the committed ones.

    Of results that are of other settings it says why they do not count.
    """
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
            # a model is one without its card, which the last stage adds
            parts = (artifacts.WEIGHTS, artifacts.DECISION, artifacts.KNOWN) if path == artifacts.MODEL else (path,)
            stale = next((reason for part in parts if (reason := lock.why_not(part))), None)
            why_not = "not made yet; `dvc repro` makes it" if path in missing else stale
            print(f"{name}  {why_not or place}")
        if artifacts.METRICS not in missing and lock.why_not(artifacts.METRICS) is None:
            from retinue.dashboard.compare import against_committed

            print(f"HEAD     {against_committed()}")


if __name__ == "__main__":
    main()
