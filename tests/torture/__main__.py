"""Tortures the pipeline: `python -m tests.torture --minutes 35 --seed 0 --kinds kills,writes,doubled`.

Each case is a function of the seed and its name, so that `--only kills-0123` does the same again; where in the run a
signal comes is a fraction of what the run takes, and hits the same line of code no more than about.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path[1:1] = [str(ROOT / "tests" / "support")]
READY = "TORTURE_READY"


def preload(folder: Path) -> bool:
    """Compiles faults.c and starts this Python again with it; whether it is there. Says so where it is not."""
    if READY in os.environ:
        return os.environ[READY] == "1"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    if compiler is None or sys.platform != "linux":
        print("NO WRITE FAULTS: there is no C compiler (cc, gcc or clang) for tests/torture/faults.c", flush=True)
        os.environ[READY] = "0"
        return False
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
    environment = {**os.environ, READY: "1", "LD_PRELOAD": str(library), "TORTURE_FOLDER": str(folder)}
    return os.execve(sys.executable, [sys.executable, "-m", "tests.torture", *sys.argv[1:]], environment)


def work(tasks: Any, seed: int, templates: Any, folder: Path) -> None:
    """A process that runs the cases it is sent, and answers with their outcomes."""
    import signal

    from tests.torture import processes
    from tests.torture.cases import run_case

    def end(*_: Any) -> None:
        processes.end_all()
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, lambda *_: None)  # of the terminal; ignored, it would be in what is started, too
    processes.adopt_orphans()
    private = processes.private_shared_memory()
    while (task := tasks.recv()) is not None:
        name, case = task
        begun = time.monotonic()
        outcome = run_case(name, case, random.Random(f"{seed} {name}"), templates, folder / name, private=private)
        processes.end_all()
        tasks.send((name, outcome.document(), time.monotonic() - begun))


@click.command()
@click.option(
    "--minutes", default=35.0, show_default=True, help="No case is started later; the start takes one or two."
)
@click.option("--seed", default=0, show_default=True, help="Of the plan and of all moments.")
@click.option("--kinds", default="kills,writes,doubled", show_default=True, help="What is done, separated by commas.")
@click.option("--kills", default=530, show_default=True, help="Kills of the pipeline and of sweeps.")
@click.option("--writes", default=270, show_default=True, help="Faults of the system.")
@click.option("--doubled", default=58, show_default=True, help="Runs two at a time.")
@click.option("--sample", is_flag=True, help="No sweeps, no W&B, nothing remembered: what starts within a minute.")
@click.option("--only", multiple=True, metavar="CASE", help="This case alone, by the name that a failure tells.")
@click.option("--jobs", default=2, show_default=True, help="Cases at a time.")
@click.option(
    "--record", type=click.Path(path_type=Path), help="What is done is not done again. Default: .cache/torture/"
)
@click.option("--page", type=click.Path(exists=True, path_type=Path), help="Page to write the table into.")
@click.option("--strict/--no-strict", default=True, show_default=True, help="End with 1 where anything failed.")
def main(
    minutes: float,
    seed: int,
    kinds: str,
    kills: int,
    writes: int,
    doubled: int,
    sample: bool,
    only: tuple[str, ...],
    jobs: int,
    record: Path | None,
    page: Path | None,
    strict: bool,
) -> None:
    """Kill, starve and double the pipeline, and compare what is there in the end with an uninterrupted run."""
    begun = time.monotonic()
    folder = Path(os.environ.get("TORTURE_FOLDER") or tempfile.mkdtemp(prefix="retinue-torture-"))
    shim = preload(folder)
    wanted = [kind for kind in kinds.split(",") if shim or kind != "writes"]

    from tests.torture import cases, forks
    from tests.torture.summary import Record, markdown, write_page
    from tests.torture.verdict import TOLERATED

    forks.install()
    default = folder / "sample.jsonl" if sample else ROOT / ".cache" / "torture" / f"seed-{seed}.jsonl"
    log = Record(record or default, seed)
    planned = cases.plan(seed, {"kills": kills, "writes": writes, "doubled": doubled}, wanted, sample=sample)
    todo = [(name, case) for name, case in planned if (name in only if only else name not in log.outcomes)]
    print(f"{len(todo)} cases, {len(planned) - len(todo)} done before; seed {seed}, {folder}", flush=True)
    templates = cases.make_all_templates(folder, todo)
    print(f"an uninterrupted run is measured; {time.monotonic() - begun:.0f} s", flush=True)
    run_all(todo, templates, folder, log, seed=seed, jobs=jobs, until=time.monotonic() + 60 * minutes)
    table = markdown(log)
    print(f"\n{table}\n")
    found = {kind: lines for kind, lines in log.failures().items() if lines}
    for kind, lines in found.items():
        print(f"{kind}: {len(lines)}")
    if page is not None:
        write_page(page, table)
    if not any(outcome["delivered"] for outcome in log.outcomes.values()):
        raise click.ClickException("no fault was delivered, so nothing was tried: more minutes, or a faster machine")
    failed = set(found) - TOLERATED
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if strict and failed else 0)


def run_all(todo: list[Any], templates: Any, folder: Path, log: Any, *, seed: int, jobs: int, until: float) -> None:
    """Hands the cases to the workers until all are done or the time is over; tells how far it is."""
    context = get_context("fork")
    workers = {}
    for _ in range(min(jobs, len(todo))):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, seed, templates, folder))
        process.start()
        theirs.close()
        workers[ours] = process
    waiting, done, begun = list(reversed(todo)), 0, time.monotonic()
    idle = set(workers)
    try:
        while True:
            while idle and waiting and time.monotonic() < until:
                idle.pop().send(waiting.pop())
            if len(idle) == len(workers):
                return
            for ready in connection.wait([each for each in workers if each not in idle]):
                name, outcome, seconds = ready.recv()  # type: ignore[union-attr]
                log.add(name, outcome, seconds)
                done += 1
                idle.add(ready)
                rate = done / (time.monotonic() - begun)
                rest = min((len(todo) - done) / rate, max(until - time.monotonic(), 0))
                state = "FAILED" if outcome["failures"] else "ok" if outcome["delivered"] else "missed"
                print(
                    f"[{done}/{len(todo)}] {60 * rate:.1f}/min, {rest / 60:.0f} min to go: {name} {state}, "
                    f"{seconds:.1f} s: {outcome['what']}",
                    flush=True,
                )
                for kind, text in outcome["failures"]:
                    print(f"    {kind}: {text}", flush=True)
                if outcome["failures"]:
                    print(
                        f"    kept: {folder / name}; again: python -m tests.torture --seed {seed} --only {name}",
                        flush=True,
                    )
    finally:
        for pipe, process in workers.items():
            pipe.close()
            process.terminate()
            process.join()


if __name__ == "__main__":
    main()
