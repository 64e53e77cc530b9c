"""`retinue lineage`: from a DVC experiment to its W&B runs, and from a run to its experiment, commit and data."""

import json
import shlex
from typing import Any

from retinue.experiments.outcomes import all_experiments
from retinue.lineage.find import Recorded, find
from retinue.tracking.runs import RecordedRun, local_runs, online_runs


def run(name: str, *, online: bool, as_json: bool) -> None:
    """Prints where the result called `name` comes from, and where its runs are.

    Args:
        name: as `provenance.find` takes it.
        online: ask the W&B server for its runs, too.
        as_json: print one JSON document.

    Raises:
        RetinueError: there is no such result, or no server.
    """
    recorded = find(name)
    runs = _runs(recorded, online)
    document = _lineage_document(recorded, runs)
    print(json.dumps(document, indent=2) if as_json else "\n".join(_lines_of_text(document)))


def _runs(recorded: Recorded, online: bool) -> list[RecordedRun]:
    runs = {run.run_id: run for run in local_runs(recorded.fingerprint)}
    if recorded.run is not None:
        runs.setdefault(recorded.run.run_id, recorded.run)
    if online:
        tracking = recorded.settings["tracking"]
        project = "/".join(part for part in (tracking["entity"], tracking["project"]) if part)
        for run in online_runs(project, recorded.fingerprint):
            known = runs.get(run.run_id)
            runs[run.run_id] = run if known is None else known._replace(url=run.url, sent=True)
    return list(runs.values())


def _lineage_document(recorded: Recorded, runs: list[RecordedRun]) -> dict[str, Any]:
    fingerprint = recorded.fingerprint
    experiments = [each for each in all_experiments() if each.fingerprint() == fingerprint]
    return {
        "settings_fingerprint": fingerprint,
        "commit": recorded.commit,
        "dirty": recorded.dirty,
        "experiments": [
            {"name": each.name, "commit": each.revision, "baseline": each.baseline} for each in experiments
        ],
        "sweeps": sorted({run.lineage["sweep"] for run in runs if "sweep" in run.lineage}),
        "runs": [
            {key: getattr(run, key) for key in ("run_id", "stage", "state", "folder", "url", "sent")} for run in runs
        ],
        "hashes": {path: md5 for path, md5 in recorded.hashes.items() if not path.startswith("src/")},
        "left_out": dict(recorded.stale),
        "metrics": dict(recorded.metrics),
        "commands": _commands(recorded, runs),
    }


def _commands(recorded: Recorded, runs: list[RecordedRun]) -> dict[str, str]:
    """What to do with the result -> the command."""
    if recorded.experiment is not None:
        name = recorded.experiment.name
        commands = {"bring it into the checkout": f"dvc exp apply {shlex.quote(name)}"}
    else:
        name = recorded.fingerprint if recorded.run is None else recorded.run.run_id
        commands = {"go to its commit": f"git switch --detach {recorded.commit}"}
    if recorded.run is None or recorded.experiment is not None:
        commands["fetch its model"] = f"dvc get --rev {recorded.commit[:12]} . models -o models-{recorded.fingerprint}"
    commands["compute it again"] = f"retinue rerun {shlex.quote(name)}"
    unsent = [run.folder for run in runs if run.folder is not None and not run.sent]
    if unsent:
        commands["send its runs"] = f"wandb sync {shlex.join(unsent)}"
    return commands


def _lines_of_text(document: dict[str, Any]) -> list[str]:
    """`document` for a person."""
    dirty = {True: ", and files that differed from it", False: "", None: ""}[document["dirty"]]
    lines = [
        f"settings    {document['settings_fingerprint']}, the group of its W&B runs",
        f"commit      {document['commit']}{dirty}",
    ]
    for each in document["experiments"]:
        lines.append(f"experiment  {each['name']}, commit {each['commit'][:12]}, from {each['baseline'][:12]}")
    lines += [f"sweep       {sweep}" for sweep in document["sweeps"]]
    lines += ["", "W&B runs" if document["runs"] else "W&B runs: none on this machine (--online asks the server)"]
    for run in document["runs"]:
        sent = ", sent" if run["sent"] and not run["url"] else ""
        lines.append(f"  {run['stage']:<10}  {run['state']:<8}  {run['url'] or run['folder']}{sent}")
    lines += ["", "DVC hashes"]
    width = max(map(len, document["hashes"]), default=0)
    lines += [f"  {path:<{width}}  {md5}" for path, md5 in document["hashes"].items()]
    if document["left_out"]:
        lines += ["", "left out, being of another result"]
        lines += [f"  {reason}" for reason in document["left_out"].values()]
    lines += ["", "commands"]
    lines += [f"  {command}  # {purpose}" for purpose, command in document["commands"].items()]
    return lines
