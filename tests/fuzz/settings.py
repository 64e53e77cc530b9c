"""Labels and folders of a source, settings and overrides: what users write by hand."""

import json
import os
import shutil
import unicodedata
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tests.fuzz.target import Target, of_file

from retinue import preflight
from retinue.pipeline import overrides
from retinue.pipeline.composition import Composition, load_params
from retinue.pipeline.errors import Fault
from retinue.pipeline.settings import build, fingerprint_of
from retinue.sweeps.axes import axes_of, points
from retinue.tracking import workspace

ROOT = Path(__file__).resolve().parents[2]


@cache
def composed() -> dict[str, Any]:
    """The committed settings."""
    return yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))


def _choice(name: str, folder: Path | str, **changes: Any) -> dict[str, Any]:
    """The section `source` of a choice for files, with `folder` as its path."""
    texts = [(ROOT / f"conf/source/{each}.yaml").read_text("utf-8") for each in ("base/files", name)]
    base, own = map(yaml.safe_load, texts)
    own.pop("defaults")
    target = own["_target_"].replace("${.module}", own["module"])
    return base | own | {"_target_": target, "path": str(folder), "inputs": str(folder)} | changes


def source_of(name: str, folder: Path, **changes: Any) -> Any:
    """The source of a choice for files that reads `folder`."""
    return build(_choice(name, folder, **changes), where="source")


def _make_labels(folder: Path) -> Any:
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/ü x.png", "b/4,5.png"):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(b"image")
    source, path = (
        source_of("image_folder", folder / "images", labels_csv="labels.csv"),
        folder / "images" / "labels.csv",
    )
    path.touch()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        records = source.records()
        ids = [record.image_id for record in records]
        assert len(set(ids)) == len(ids) > 0, "an image twice"
        for record in records:
            assert record.label or record.problem or record.is_stray, "neither label nor problem"
            assert record.problem or source.read(record.image_id) == b"image", "not one of the images"

    return read


def _label_seeds() -> list[bytes]:
    return [
        b"image,label\na/1.png,cat\na/2.png,dog\nb/3.png,cat\n",
        "\ufeffimage,label,group,split\r\na/1.png,cat,g1,train\r\nb/ü x.png,dog,,val\r\nb/3.png,cat,g,\r\n".encode(),
        b'label,image,split\n"a ""b"", c","b/4,5.png",\ndog,a/2.png,train\n',
    ]


def _make_folders(folder: Path) -> Any:
    source, root = source_of("image_folder", folder / "tree"), folder / "tree"

    def read(data: bytes) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for line in data.split(b"\n")[:40]:
            name, arrow, place = line.partition(b" -> ")
            path = os.fsencode(root) + b"/" + name.replace(b"..", b"_")
            with suppress(OSError, ValueError):  # no name of a file
                os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - names are bytes
                if name.endswith(b"|"):
                    os.mkfifo(path)
                elif arrow:
                    os.symlink(place, path)  # noqa: PTH211
                else:
                    os.close(os.open(path, os.O_CREAT, 0o600))
        records = source.records()
        for record in records:
            assert record.label or record.problem or record.is_stray, "neither label nor problem"
            control = [sign for sign in record.label if unicodedata.category(sign) == "Cc"]
            assert not control or record.problem, f"label {record.label!r}"
            if not record.problem:
                with suppress(OSError):
                    source.read(record.image_id)

    return read


def _folder_seeds() -> list[bytes]:
    return [
        b"cat/1.png\ncat/2.png\ndog/3.png\n.hidden\ndog/deep/er/4.png",
        b"train/cat/1.png\ntrain/dog/2.png\nval/cat/3.png\ntest/dog/4.png\nThumbs.db",
        b"cat/1.png\ncat/l.png -> 1.png\ndog/loop -> loop\ndog/pipe|\ncat/gone -> nowhere\ndog/up -> ..\nloose.png",
        "café/1.png\ncafe\u0301/2.png\nCat/3.png\ncat /4.png\n\x1b[31m/5.png\ncat/\ndog/".encode() + b"\nx\xff/6.png",
    ]


def _read_params(path: Path) -> None:
    values = load_params(path)
    assert values, "empty"
    assert all(isinstance(key, str) for key in values), "keys that are no text"
    fingerprint_of(values)


def _yaml_seeds() -> list[bytes]:
    return [
        b"seed: 0\nmodel:\n  name: mlp\n  hidden: [512, 128]\ntrain:\n  lr: 1e-3\n  text: 'a b'\n  none: null\n",
        b"a: &a {x: 1, y: [1, 2]}\nb: *a\nc:\n  <<: *a\n  z: ${a.x}\nd: ${b.y}\n",
        b"# comment\n? complex\n: - 1\n  - !!str 2\n  - >-\n    folded\n    text\n  - |\n    kept\n...\n",
        b'{"seed": 0, "source": {"path": "a b", "inputs": "${.path}"}, "list": [1, 2.5, true, null, "x"]}',
    ]


def _make_section(folder: Path) -> Any:
    def read(data: bytes) -> None:
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            return
        if isinstance(values, dict) and values:  # as `load_params` gives them
            preflight.check(values, elsewhere=True)

    return read


def _section_seeds() -> list[bytes]:
    heavy = {"model", "augment", "explain"}  # they build what takes a while; the whole composition has them
    return [json.dumps({name: values}).encode() for name, values in composed().items() if name not in heavy]


def _composition_seeds() -> list[bytes]:
    values = composed()
    small = {"model": {"name": "mlp", "module": "mlp", "_target_": "retinue.models.mlp.MLP", "hidden": [4]}}
    sources = [_choice("image_folder", "."), _choice("table", ".", table="params.yaml")]
    more = [values | {"source": source} for source in sources]
    return [json.dumps(each).encode() for each in (values, values | small, *more)]


def _make_overrides(_: Path) -> Any:
    def read(data: bytes) -> Any:
        text = os.fsdecode(data.replace(b"\0", b""))  # as Python has an argument
        answers = []
        for several in (False, True):
            found = overrides.readable(text, several=several)
            if isinstance(found, Fault):
                str(found).encode()
                answers.append("fault")
                continue
            assert several or overrides.parsed(found), f"{found!r} was called readable"
            overrides.name_of(found), overrides.value_of(found)
            answers.append("read")
        return tuple(answers)

    return read


def _make_axes(_: Path) -> Any:
    def read(data: bytes) -> Any:
        given = [os.fsdecode(line) for line in data.replace(b"\0", b"").split(b"\n") if line]
        readable = [overrides.readable(each, several=True) for each in given]
        if any(isinstance(each, Fault) for each in readable):
            return "fault"
        axes = axes_of({}, [str(each) for each in readable])
        for _, point in zip(range(20), points(axes), strict=False):
            assert all("=" in each or each.startswith("~") for each in point), point
        return len(axes.choices), len(axes.intervals)

    return read


def _override_seeds() -> list[bytes]:
    return [
        *(
            b"model=resnet18",
            b"optimizer.lr=0.01",
            b"+train.new=[1,2,{a: b}]",
            b"~augment",
            b"source.path=my photos (1)",
        ),
        *(
            b"transfer.unfreeze='conv* => 1'",
            b'name="a \\"b\\" c"',
            b"source.path=~/photos",
            b"seed=0,1,2",
            b"++a.b=${seed}",
        ),
        *(
            "source.path=写真=#".encode(),
            b"optimizer.lr=tag(log,interval(0.001,0.1))",
            b"seed=range(0,3)",
            b"a@b=c",
            b"x=1e5",
        ),
    ]


def _axis_seeds() -> list[bytes]:
    return [
        b"model=lenet5,mlp\noptimizer.lr=0.1,0.01\nseed=0,1",
        b"optimizer.lr=tag(log,interval(0.001,0.1))\ntrain.batch_size=interval(8,64)\nsweep.search=random",
        b"seed=range(0,5)\nmodel=choice(mlp,lenet5)\n~augment\ntrain.x=glob(*)",
    ]


def _make_composition(folder: Path) -> Any:
    (folder / "conf").symlink_to(ROOT / "conf")
    (folder / "dvc.yaml").touch()

    def read(data: bytes) -> Any:
        given = [os.fsdecode(line) for line in data.replace(b"\0", b"").split(b"\n") if line][:4]
        found = Composition.create(given)
        found.values()
        return len(found.faults)

    return read


def _read_workspace(path: Path) -> int:
    return len(workspace.load(path).sections)


def _workspace_seeds() -> list[bytes]:
    whole = yaml.safe_load((ROOT / "wandb.yaml").read_text("utf-8"))
    seeds = [{**whole, "sections": [section], "columns": whole["columns"][:2]} for section in whole["sections"][:5]]
    return [json.dumps(each).encode() for each in seeds]


TARGETS = [
    Target("labels-csv", 90, _label_seeds, _make_labels, "cells", tokens=(b"a/1.png", b"split", b"group", b"train")),
    Target("class-folders", 12, _folder_seeds, _make_folders, "lines", tokens=(b"train/", b"cat/", b" -> ", b"val/")),
    Target("params-yaml", 30, _yaml_seeds, of_file("params.yaml", _read_params), "lines"),
    Target("params-section", 25, _section_seeds, _make_section, "json"),
    Target("params-whole", 0.4, _composition_seeds, _make_section, "json"),
    Target("overrides", 15, _override_seeds, _make_overrides, "lines", tokens=(b"source.path=", b".path=", b"=>")),
    Target("sweep-axes", 6, _axis_seeds, _make_axes, "lines"),
    Target("composition", 0.2, _override_seeds, _make_composition, "lines", tokens=(b"model=", b"augment=")),
    Target("wandb-yaml", 6, _workspace_seeds, of_file("wandb.yaml", _read_workspace), "json"),
]
