"""`retinue rerun`: a recorded result computed again, in a clean clone, and compared number by number."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from retinue.experiments.outcomes import Workspace
from retinue.lineage.find import Recorded, find
from retinue.pipeline.artifacts import METRICS, flat_metrics
from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.files import read_json
from retinue.pipeline.git import ask, clone, git
from retinue.pipeline.numbers import significant
from retinue.pipeline.record import SETTINGS, declared, dvc_md5

PACKAGES = "requirements.lock"


class MetricComparison(NamedTuple):
    """A number of evaluation/metrics.json; None where it is missing."""

    name: str
    recorded: float | None
    reproduced: float | None

    def equal(self, tolerance: float) -> bool:
        """Whether both are there and differ by at most `tolerance`."""
        if self.recorded is None or self.reproduced is None:
            return False
        return abs(self.recorded - self.reproduced) <= tolerance


def run(name: str, *, tolerance: float, shared_cache: bool, anyway: bool, keep: Path | None) -> bool:
    """Computes the result called `name` again and prints the comparison.

    Args:
        name: as `provenance.find` takes it.
        tolerance: largest difference that counts as equal, >= 0.
        shared_cache: use this checkout's DVC cache: what it holds is taken from there, not computed.
        anyway: go on where the code or an input is not as it was.
        keep: a folder that does not exist, for the clone; None: a temporary one.

    Returns:
        Whether all numbers are equal.

    Raises:
        RetinueError: the result cannot be found or computed again.
    """
    if not tolerance >= 0:
        raise RetinueError(f"--tolerance: expected a number >= 0, got {tolerance}.")
    recorded = find(name)
    _check_commit(recorded, anyway)
    _print_now(f"{recorded.title}: settings {recorded.fingerprint}, commit {recorded.commit[:12]}")
    with _folder(keep) as folder:
        checkout = checkout_of(recorded, folder, shared_cache=shared_cache)
        provide_inputs(recorded, checkout, folder if keep else folder.parent, anyway=anyway)
        _print_now(f"dvc repro in {checkout}")
        _repro(checkout)
        reproduced = flat_metrics(read_json(checkout / METRICS))
        same, outs = compare_outs(recorded, checkout)
    rows = compare_metrics(recorded, reproduced)
    _print(rows, tolerance)
    if outs:
        print(f"{same} of {outs} outs of the stages are the same, byte for byte.")
    return all(row.equal(tolerance) for row in rows)


def checkout_of(recorded: Recorded, folder: Path, *, shared_cache: bool) -> Path:
    """The project as it was, in a new git repository at `folder`, and without results.

    The settings are the recorded ones, but for tracking, which is off: the reproduction is no new W&B run.

    Returns:
        The project's folder in it.
    """
    from omegaconf import OmegaConf

    top = Path(git(project_root(), "rev-parse", "--show-toplevel"))
    clone(top, folder, recorded.commit)
    checkout = folder / git(project_root(), "rev-parse", "--show-prefix")
    tracking = recorded.settings.get("tracking")
    if not isinstance(tracking, Mapping):
        raise RetinueError(f"{recorded.title}: its settings have no section tracking, so it is of another version.")
    settings = {**recorded.settings, "tracking": {**tracking, "mode": "off"}}
    OmegaConf.save(OmegaConf.create(settings), checkout / SETTINGS)
    cache = _dvc_cache() if shared_cache else checkout / ".dvc" / "cache"
    (checkout / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", "utf-8")
    return checkout


def provide_inputs(recorded: Recorded, checkout: Path, room: Path, *, anyway: bool) -> None:
    """Puts what the pipeline reads and git does not hold (images, weights) at its place for the clone.

    Files are linked, so nothing is copied on one file system. A path that is absolute is read where it is.

    Args:
        recorded: what it was.
        checkout: the clone.
        room: the folder below which files may be made.
        anyway: go on where an input is not what was read then.

    Raises:
        RetinueError: an input is not there, or, unless `anyway`, is not what was read then.
    """
    for path in _inputs(recorded, checkout):
        origin, target = project_root() / path, Path(os.path.normpath(checkout / path))
        if target.is_relative_to(checkout) and target.exists():
            continue  # git holds it
        if not origin.exists():
            raise RetinueError(
                f"{path}: {recorded.title} read it, git does not hold it, and it is not at {origin} any more. "
                "Put it back there and run this again."
            )
        _check_input(recorded, path, origin, anyway)
        if target.exists():
            continue
        if not target.is_relative_to(room):
            raise RetinueError(f"{path}: this place is outside of {room}. Make it there by hand, or leave --keep out.")
        _link(origin, target)


def compare_metrics(recorded: Recorded, reproduced: Mapping[str, float]) -> list[MetricComparison]:
    """The numbers side by side; of a W&B run, which does not log all of them, those it logged.

    Raises:
        RetinueError: no metrics were recorded.
    """
    if not recorded.metrics:
        reason = recorded.stale.get("evaluate", "the stage evaluate did not finish, or its W&B run is elsewhere")
        raise RetinueError(
            f"{recorded.title}: no metrics were recorded, so there is nothing to compare with: {reason.rstrip('.')}. "
            f"Reproduced: {dict(reproduced)}."
        )
    whole = recorded.run is None or recorded.experiment is not None
    names = {**recorded.metrics, **(reproduced if whole else {})}
    return [MetricComparison(name, recorded.metrics.get(name), reproduced.get(name)) for name in names]


def compare_outs(recorded: Recorded, checkout: Path) -> tuple[int, int]:
    """How many of the recorded outs have the recorded hash in the clone, and how many there are."""
    with chdir(checkout):
        reproduced = Workspace().hashes()
        outs = [out for stage in declared(recorded.settings).values() for out in stage.outs if out in recorded.hashes]
    return sum(reproduced.get(out) == recorded.hashes[out] for out in outs), len(outs)


def _check_commit(recorded: Recorded, anyway: bool) -> None:
    if ask(project_root(), "cat-file", "-e", f"{recorded.commit}^{{commit}}") is None:
        raise RetinueError(
            f"{recorded.title}: its commit {recorded.commit} is not in this repository. `git fetch` it from where the "
            "run was made, then run this again."
        )
    if recorded.dirty and not anyway:
        raise RetinueError(
            f"{recorded.title}: files other than {SETTINGS} differed from commit {recorded.commit[:12]} when it ran, "
            "and nobody recorded how. --anyway computes it with the code of the commit."
        )
    if ask(project_root(), "diff", "--quiet", recorded.commit, "--", PACKAGES) is None:
        _print_now(f"warning: {PACKAGES} is another than in the commit, so the packages may be, too.")


def _inputs(recorded: Recorded, checkout: Path) -> list[Path]:
    """What the stages read and no stage writes."""
    with chdir(checkout):
        stages = declared(recorded.settings).values()
    outs = [Path(out) for stage in stages for out in stage.outs]
    deps = dict.fromkeys(Path(dep) for stage in stages for dep in stage.deps)
    return [dep for dep in deps if not any(dep == o or o in dep.parents or dep in o.parents for o in outs)]


def _check_input(recorded: Recorded, path: Path, origin: Path, anyway: bool) -> None:
    then = recorded.hashes.get(path.as_posix())
    if then is None:
        _print_now(f"warning: {path}: nobody recorded its hash; it may have changed since.")
        return
    now = dvc_md5(origin)
    if now == then:
        return
    changed = f"{path}: it has changed since: its DVC hash was {then} and is {now}"
    if not anyway:
        raise RetinueError(f"{changed}. Bring it back as it was, or compute with what is there: --anyway.")
    _print_now(f"warning: {changed}.")


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        if keep.exists():
            raise RetinueError(f"--keep: {keep} exists already. Name a folder that does not.")
        yield Path(os.path.normpath(keep.absolute()))
        return
    with tempfile.TemporaryDirectory(prefix="retinue-rerun-") as folder:
        yield Path(folder).resolve() / "checkout"


def _repro(checkout: Path) -> None:
    """`dvc repro`, its output shown as it comes."""
    # what DVC, a sweep or W&B told this process is not meant for the clone
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "RETINUE_", "WANDB_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", "repro"]
    done = subprocess.run(command, cwd=checkout, env={**own, "PATH": path}, check=False)
    if done.returncode:
        raise RetinueError("`dvc repro` failed in the clone, as said above. --keep FOLDER keeps the clone to look at.")


def _dvc_cache() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"], cwd=project_root(), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _link(origin: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if origin.is_dir():
        shutil.copytree(origin, target, copy_function=_link_file)
    else:
        _link_file(origin, target)


def _link_file(origin: Any, target: Any) -> None:
    try:
        os.link(origin, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(origin, target)


def _print(rows: list[MetricComparison], tolerance: float) -> None:
    width = max(len(row.name) for row in rows)
    print(f"\n{'metric':{width}}  {'recorded':>20}  {'reproduced':>20}")
    for row in rows:
        verdict = "equal" if row.equal(tolerance) else "missing"
        if row.recorded is not None and row.reproduced is not None and row.recorded != row.reproduced:
            within = ", within the tolerance" if row.equal(tolerance) else ""
            verdict = f"differs by {significant(abs(row.recorded - row.reproduced), 2)}{within}"
        print(f"{row.name:{width}}  {row.recorded!s:>20}  {row.reproduced!s:>20}  {verdict}")
    different = [row for row in rows if not row.equal(tolerance)]
    if not different:
        print(f"\nreproduced: {len(rows)} of {len(rows)} numbers are equal.")
        return
    print(
        f"\nnot reproduced: {len(different)} of {len(rows)} numbers differ. Another kind of processor rounds sums "
        "differently; --tolerance says how large a difference you accept."
    )


def _print_now(text: str) -> None:
    print(text, flush=True)
