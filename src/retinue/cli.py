"""The command `retinue`: what is not a stage."""

from pathlib import Path

import click

from retinue import artifacts
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
