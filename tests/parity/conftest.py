"""torchvision, timm and scikit-image as independent implementations; where they cannot be imported, these tests skip.

`make test-parity` installs them beside the environment, not into it: the published torchvision wheel is built for the
CUDA build of torch, does not import on the CPU build, and would take torchmetrics and Lightning with it.
"""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
import torch

FOLDER = os.environ.get("RETINUE_PARITY")


def declare_operators() -> torch.library.Library | None:
    """Declares, without implementing, the compiled operators whose absence stops `import torchvision`.

    Returns:
        The library of declarations; they live as long as it does. None where torchvision brings its own.
    """
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    found = importlib.util.find_spec("torchvision")
    assert found is not None
    assert found.submodule_search_locations is not None
    registrations = Path(found.submodule_search_locations[0], "_meta_registrations.py").read_text("utf-8")
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"', registrations))):
        library.define(f"{name}(Tensor a) -> Tensor")
    return library


if FOLDER:
    sys.path.append(FOLDER)
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
_OPERATORS = declare_operators() if HAS_TORCHVISION else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not HAS_TORCHVISION or importlib.util.find_spec("timm") is None:
        reason = pytest.mark.skip(reason="torchvision and timm are not importable; run `make test-parity`")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(reason)
