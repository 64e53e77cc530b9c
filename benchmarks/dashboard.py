"""How long `retinue dashboard` takes over many experiments: `python -m benchmarks.dashboard --experiments 1000`.

In a clone of this checkout, whose HEAD has to be evaluated and in DVC's cache (`dvc repro`, `git commit`), every
experiment is a commit with a learning rate of its own in params.yaml and dvc.lock. They share predictions and maps,
which are read and compared for each of them all the same.
"""

import re
import resource
import subprocess
import tempfile
import time
from contextlib import chdir
from pathlib import Path

import click

from retinue.dashboard.command import run
from retinue.experiments.outcomes import REFERENCES, committed
from retinue.pipeline.composition import project_root
from retinue.pipeline.git import clone, git
from retinue.pipeline.numbers import short, significant

CHANGED = ("params.yaml", "dvc.lock")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--experiments", type=click.IntRange(min=1), default=1000, show_default=True)
def main(experiments: int) -> None:
    """Time the page, with its reports, and print its size and the peak memory of the process."""
    origin = project_root()
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder, "checkout")
        clone(origin, checkout, committed("HEAD").revision)
        asked = subprocess.run(["dvc", "cache", "dir"], cwd=origin, check=True, capture_output=True, text=True)
        subprocess.run(["dvc", "cache", "dir", "--local", asked.stdout.strip()], cwd=checkout, check=True)
        make_experiments(checkout, experiments)
        with chdir(checkout):
            begun = time.perf_counter()
            page = run([], output=Path(folder, "page"), baseline=None, images=8, with_latency=False)
            seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        size = short(page.stat().st_size, "B")
        print(f"{experiments} experiments: {significant(seconds, 3)} s, {size}, peak memory {short(peak, 'B')}")


def make_experiments(checkout: Path, count: int) -> None:
    """Commits with other learning rates below refs/exps, children of HEAD."""
    head = git(checkout, "rev-parse", "HEAD")
    texts = {name: git(checkout, "show", f"HEAD:{name}") + "\n" for name in CHANGED}
    lines = []
    for number in range(count):
        lr = f"{0.001 + number * 1e-6:.6f}"
        message = f"trial {number}"
        lines += [f"commit {REFERENCES}/{head[:2]}/{head[2:]}/trial-{number:04d}"]
        lines += [f"committer benchmark <benchmark@localhost> {1_700_000_000 + number} +0000"]
        lines += [f"data {len(message)}", message, f"from {head}"]
        for name, text in texts.items():
            changed = re.sub(r"\b(lr: )[\d.e-]+\n", rf"\g<1>{lr}\n", text)
            lines += [f"M 100644 inline {name}", f"data {len(changed.encode())}", changed]
    subprocess.run(
        ["git", "fast-import", "--quiet"], cwd=checkout, input="\n".join(lines) + "\n", text=True, check=True
    )


if __name__ == "__main__":
    main()
