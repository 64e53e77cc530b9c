"""timm is an optional extra: without it, or with one that cannot be imported, the settings are refused."""

import importlib.util
import sys
from pathlib import Path

import pytest

from networks import make_network
from retinue.pipeline.errors import SettingsError


def test_without_timm_the_settings_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("timm") is not None:
        monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(
        SettingsError, match=r"timm, an optional extra, is not installed\. Run `pip install \.\[timm\]`"
    ):
        make_network("timm")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import no_such_package", r"\(No module named 'no_such_package'\)\. Run `pip install \.\[timm\]`"),
        (
            "raise RuntimeError('operator torchvision::nms is missing')",
            r"cannot be imported \(operator torchvision::nms is missing\)\. It needs a torchvision made for torch \d",
        ),
        ("raise ImportError('libcudart.so: cannot open')", r"cannot be imported \(libcudart\.so: cannot open\)"),
    ],
)
def test_a_timm_that_cannot_be_imported_is_explained(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text(content, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(SettingsError, match=message):
        make_network("timm")
