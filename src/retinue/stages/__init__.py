"""The stages of the pipeline, one file each. Stages never import stages; they meet in artifacts.

`python -m retinue.stages.NAME --help` is answered here, before the stage imports torch.
"""

import sys
from pathlib import Path


def _answer(module: str, arguments: list[str]) -> None:
    """Ends the process with what the first option among `arguments` asks of a stage; returns where there is none.

    Args:
        module: that was started, `retinue.stages.NAME` for a stage.
        arguments: of it; options begin with a hyphen.
    """
    option = next((each for each in arguments if each.startswith("-")), None)
    package, _, name = module.rpartition(".")
    file = Path(__file__).with_name(f"{name}.py")
    if option is None or package != __name__ or not file.is_file():
        return
    if option in ("-h", "--help", "--hydra-help"):
        print(_usage(name, file))
        sys.exit(0)
    instead = {
        "-m": "a stage runs once; `retinue sweep OVERRIDES` runs the pipeline with several values",
        "-c": "`retinue compose OVERRIDES` writes the settings to params.yaml",
    }
    key = {"--multirun": "-m", "--cfg": "-c"}.get(option.partition("=")[0], option)
    reason = instead.get(key, "no such option; settings are given as KEY=VALUE")
    print(f"error: stage {name}: {option}: {reason}. --help says more.", file=sys.stderr)
    sys.exit(2)


def _usage(name: str, file: Path) -> str:
    import ast

    what = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    return f"""usage: PYTHONPATH=src python -m retinue.stages.{name} [OVERRIDES]

{what}

Without OVERRIDES the stage reads params.yaml, as `dvc repro` has it do. With them it composes conf/ anew for this one
run, and params.yaml is not used: a choice (model=resnet18), a value (optimizer.lr=0.01), a recipe
(experiment=hymenoptera). Choices are the files of conf/, their keys what stands in them.

`dvc repro` runs what has changed of all stages, in their order; `retinue compose OVERRIDES` writes params.yaml;
`retinue sweep OVERRIDES` tries several values; dvc.yaml says what each stage reads and writes."""


# Python imports this package on its way to the module of `python -m`, and sys.argv[0] is "-m" until it has found that
# module. At any other time, in a fork too, nothing is asked here.
if sys.argv[:1] == ["-m"]:
    _module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    _answer(_module, sys.argv[1:])
    if _module.startswith(f"{__name__}."):
        from retinue.pipeline.interruption import end_at_once

        end_at_once(f"stage {_module.rpartition('.')[2]}")
