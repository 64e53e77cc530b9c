"""`python -m tests.fuzz`: fuzzes every reader and prints a table; exit status 1 where one has a fault."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "fuzz"

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
for place in (ROOT / "src", ROOT / "tests" / "support"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--inputs", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Of all together.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--targets", default="", help="Names or beginnings of names, with commas.  [default: all]")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Processes at a time.")
@click.option("--engine", type=click.Choice(["mutation", "atheris"]), default="mutation", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=FOLDER / "report.json", help="The table as JSON.")
@click.option("--replay", type=click.Path(path_type=Path, exists=True), help="Read this input with the target named.")
def main(inputs: int, seed: int, targets: str, jobs: int, engine: str, output: Path, replay: Path | None) -> None:
    """Give random inputs to every reader of files, messages and command lines.

    An answer has to be a result or an explained error, within 5 s of the processor and 600 MB. An input that gets
    another answer is kept in .cache/fuzz/ with the command that repeats it. About 10 minutes on 2 cores for a million.
    """
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["retinue", "PIL", "safetensors", "omegaconf", "yaml", "hydra"]):
            from tests.fuzz import table
    else:
        from tests.fuzz import table
    from tests.fuzz.running import run, tasks_of

    wanted = [each for each in targets.split(",") if each]
    names = [name for name in table.TARGETS if not wanted or any(name.startswith(each) for each in wanted)]
    if not names:
        raise click.BadParameter(f"expected some of {', '.join(table.TARGETS)}", param_hint="--targets")
    if replay is not None:
        _replay(table.TARGETS[names[0]], replay)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, and its files are removed
    begun, done = time.monotonic(), dict.fromkeys(names, 0)

    def show(name: str, number: int) -> None:
        done[name] += number
        text = f"{sum(done.values()):,} inputs, {time.monotonic() - begun:.0f} s, {name}"
        print(text, file=sys.stderr, flush=True)

    tallies = run(tasks_of(table.shares(names, inputs), seed, engine), jobs, show)
    seconds = time.monotonic() - begun
    document = {"engine": engine, "seed": seed, "jobs": jobs, "seconds": round(seconds, 1)}
    document["targets"] = [_row(name, tally) for name, tally in tallies.items()]
    document["inputs"] = sum(tally.inputs for tally in tallies.values())
    document["faults"] = sum(len(tally.faults) for tally in tallies.values())
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    _print_table(document)
    faults = [fault for tally in tallies.values() for fault in tally.faults.values()]
    for fault in faults:
        path = FOLDER / fault.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fault.data)
        print(f"\n{fault.target}: {fault.kind} at {fault.place or '?'}, {fault.count} inputs, as {fault.data[:100]!r}")
        print(f"  {fault.trace.strip().splitlines()[-1][:300] if fault.trace.strip() else ''}")
        print(f"  python -m tests.fuzz --targets {fault.target} --replay {path.relative_to(ROOT)}")
    sys.exit(bool(faults))


def _row(name: str, tally: Any) -> dict[str, Any]:
    faults = [
        {"kind": each.kind, "place": each.place, "inputs": each.count, "file": each.name, "trace": each.trace}
        for each in tally.faults.values()
    ]
    return {
        "target": name,
        "inputs": tally.inputs,
        "results": tally.accepted,
        "explained": dict(tally.refused),
        "answers": tally.answers,
        "seconds": round(tally.seconds, 2),
        "slowest_s": round(tally.slowest_s, 3),
        "peak_mb": round(tally.peak_mb),
        "noise_bytes": tally.noise_bytes,
        "faults": faults,
    }


def _print_table(document: dict[str, Any]) -> None:
    print("| target | inputs | results | explained errors | answers | faults | slowest, s | memory, MB |")
    print("|---|---|---|---|---|---|---|---|")
    for row in document["targets"]:
        explained = ", ".join(f"{count:,} {name}" for name, count in row["explained"].items()) or "none"
        print(
            f"| {row['target']} | {row['inputs']:,} | {row['results']:,} | {explained} | {row['answers']} "
            f"| {len(row['faults'])} | {row['slowest_s']:.2f} | {row['peak_mb']} |"
        )
    print(f"\n{document['inputs']:,} inputs in {document['seconds']:.0f} s, {document['faults']} faults.")


def _replay(target: Any, path: Path) -> None:
    """Reads one input in this process, without any limit."""
    import tempfile

    data = path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        read = target.make(Path(folder))
        try:
            print(f"result: {read(data)!r}")
        except target.errors as error:
            print(f"explained: {type(error).__name__}: {error}")
        finally:
            os.chdir(ROOT)


if __name__ == "__main__":
    main()
