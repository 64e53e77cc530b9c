"""Initial weights: from a file, an address or the name of a published set, into a network; plain tensors only."""

import errno
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import nn

from retinue.models.network import Network, why_not_taken
from retinue.pipeline.artifacts import WEIGHTS
from retinue.pipeline.errors import Fault, ModelError
from retinue.pipeline.files import sha256
from retinue.pipeline.ranges import Checked, allowed, shown
from retinue.pipeline.settings import first_line
from retinue.sources.download import DownloadSettings, Wanted, download
from retinue.sources.opening import why_no_address

SUFFIXES = (".pth", ".pt", ".safetensors")
_LONGEST_NAME = 200
"""Characters of a file name that leave room for those of its lock and its partial download."""
_HEXADECIMAL = "8 to 64 hexadecimal digits"

UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    struct.error,
)
"""What `torch.load` raises for a file that is cut off, is something else, or holds more than tensors."""


def _one_place(path: str | None, url: str | None) -> Fault | None:
    if path is None or url is None:
        return None
    return Fault("url", shown(url), "null, because weights.path is given", "Choose weights=file or weights=url.")


def _address_is_whole(url: str | None) -> Fault | None:
    """An address that a connection can be made to, which a pattern cannot tell."""
    if url is None or not (reason := why_no_address(url)):
        return None
    return Fault("url", shown(url), "an address that can be opened", f"{reason[:1].upper()}{reason[1:]}.")


def _download_has_a_digest(url: str | None, sha256: str | None) -> Fault | None:
    if url is None or sha256 is not None:
        return None
    hint = "A download is used only with its digest: give weights.sha256=DIGEST."
    return Fault("sha256", "null", _HEXADECIMAL, hint)


@dataclass(frozen=True)
class WeightsSettings(Checked, section="weights"):
    """conf/weights: where the network starts.

    Attributes:
        name: of the choice.
        path: a file of weights (see `load_weights`), or a model bundle, whose folder holds one.
        url: http(s) address of one; needs `sha256`. Without path and url, weights are drawn from the seed.
        sha256: hexadecimal digest of the file, or its first digits.
        inputs: the file DVC watches: the weights, or this module where there is no file.
        held_out: of a model bundle, the digests of the images of today's test split, which it must not have been
            trained on; any file of the code where there is no bundle. DVC watches it, too.
    """

    RELATIONS = (_one_place, _address_is_whole, _download_has_a_digest)

    name: str
    path: str | None
    url: str | None = field(
        metadata=allowed(
            pattern=r"https?://[^?#]+\.(?i:pth|pt|safetensors)([?#].*)?",
            expected=f"an address (http:// or https://) that ends in {', '.join(SUFFIXES)}",
            hint="A file is weights.path.",
        )
    )
    sha256: str | None = field(metadata=allowed(pattern="[0-9a-fA-F]{8,64}", expected=_HEXADECIMAL))
    inputs: str = field(metadata=allowed(follows="path"))
    held_out: str = ""

    @property
    def is_bundle(self) -> bool:
        """Whether `path` is the folder of a model bundle."""
        return self.path is not None and Path(self.path).is_dir()

    @property
    def given(self) -> bool:
        """Whether there are weights to start from."""
        return self.path is not None or self.url is not None

    def file(self) -> Path:
        """The file of weights at `path`, which is not None; of a model bundle, the one in its folder.

        Raises:
            ModelError: there is none, or it has another suffix.
        """
        assert self.path is not None
        path = Path(self.path)
        path = path / WEIGHTS.name if path.is_dir() else path
        _check_name(path)
        return path

    def fetch(self, limits: DownloadSettings) -> Path:
        """The file of weights, downloaded where it must be, its digest checked.

        Downloads go to torch's own cache (`torch.hub.get_dir()`), so one that torchvision has made is used again.

        Args:
            limits: of a download.

        Raises:
            ModelError: no such file or address, or another digest.
        """
        path = self.file() if self.url is None else _downloaded(self.url, str(self.sha256).lower(), limits)
        digest = sha256(path)
        if self.sha256 is not None and not digest.startswith(self.sha256.lower()):
            raise ModelError(
                f"{path}: its SHA-256 is {digest}, expected {self.sha256.lower()}… The file is damaged or another one; "
                f"{'delete it and run again' if self.url else 'correct weights.sha256 or weights.path'}."
            )
        return path


class LoadReport(NamedTuple):
    """What became of published tensors, by their dotted names in the network's order.

    Attributes:
        loaded: taken over as published.
        adapted: taken over, for another number of input channels.
        skipped: not taken over: a head made for other classes, whose own initialisation stays, or a part that this
            variant of the network does without.
    """

    loaded: list[str]
    adapted: list[str]
    skipped: list[str]

    def __str__(self) -> str:
        adapted = f"; adapted to the input channels: {', '.join(self.adapted)}" if self.adapted else ""
        skipped = f"; skipped: {_shown_names(self.skipped, ', ')}" if self.skipped else ""
        return f"{len(self.loaded)} tensors loaded{adapted}{skipped}"

    def document(self) -> dict[str, Any]:
        """What the bundle records: every name but those of `loaded`, of which the number says enough."""
        return {**self._asdict(), "loaded": len(self.loaded)}


def load_weights(network: Network, path: Path | str, *, with_heads: bool = True) -> LoadReport:
    """Copies a published state dict into `network`.

    Every tensor must find its counterpart of the same name and shape, with these exceptions: a head (`network.head`,
    `network.auxiliary_heads`) keeps its fresh initialisation where its shape differs; the first convolution is adapted
    to another number of input channels; parts that the variant does without (`network.dispensable`) may be there; and
    counters of batch norm (`num_batches_tracked`) may be absent, as in old files.

    For one input channel the first convolution's weights are summed over the published ones, which is what the network
    computes for an image whose channels are all equal; for more channels than published they are repeated in turn and
    scaled by published / own, which keeps the size of the sums.

    Args:
        network: changed in place, and not at all where an error is raised.
        path: .pth or .pt (a flat dict of tensors, as torchvision publishes it) or .safetensors. Nothing in it is
            executed: torch's weights-only loader refuses everything but tensors.
        with_heads: False leaves the heads as they are, whatever their shape: they were made for other classes.

    Raises:
        ModelError: no such file, not a file of tensors, or tensors that are missing, unexpected, of another shape or
            not finite, by name.
    """
    path = Path(path)
    published = network.adopt(read_tensors(path))
    own = network.state_dict()
    fresh = _fresh_heads(network, own, published, with_heads=with_heads)
    first = _first_convolution(network)
    report = LoadReport([], [], [])
    values: dict[str, torch.Tensor] = {}
    problems: list[str] = []
    for name in sorted(published.keys() - own.keys()):
        if not name.startswith(network.dispensable or "\0"):
            problems.append(f"unexpected {name} {tuple(published[name].shape)}")
    for name, tensor in own.items():
        given = published.get(name)
        if given is None:
            if not name.endswith(".num_batches_tracked"):
                problems.append(f"missing {name} {tuple(tensor.shape)}")
        elif name in fresh:
            report.skipped.append(name)
        elif (reason := why_not_taken(tensor, given)) is not None:
            problems.append(f"{name} {reason}")
        elif (taken := _fitted(given, tensor, adaptable=name == first)) is None:
            problems.append(f"{name} is {tuple(given.shape)}, the network's is {tuple(tensor.shape)}")
        elif not taken.isfinite().all():
            problems.append(f"{name} holds NaN or infinite values")
        else:
            values[name] = taken
            (report.loaded if given.shape == tensor.shape else report.adapted).append(name)
    if problems:
        raise ModelError(
            f"{path}: these weights do not fit {type(network).__name__}: {_shown_names(problems, '; ')}. "
            "Choose the model they were published for (its depth, variant, stem and version too), or weights=none."
        )
    report.skipped.extend(name for name in published if name not in own)
    network.load_state_dict(values, strict=False)
    return report


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a .pth, .pt or .safetensors file, by name, on the CPU.

    Raises:
        ModelError: see `load_weights`.
    """
    _check_name(path)
    if path.suffix.lower() == ".safetensors":
        try:
            return safetensors.torch.load_file(path, device="cpu")
        except (SafetensorError, *UNREADABLE) as error:
            raise _no_tensors(path, error) from error
    content = load_plain(path)
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        found = f"a dict with the keys {sorted(map(str, content))[:5]}" if isinstance(content, dict) else type(content)
        raise ModelError(
            f"{path}: expected a flat dict of names and tensors, found {found}. Save the network's state_dict() alone."
        )
    return {str(name): tensor for name, tensor in content.items()}


def load_plain(path: Path) -> Any:
    """What `torch.save` wrote to `path`, by torch's weights-only loader: tensors and plain containers, no code.

    An archive that holds more than the file's size is not opened: torch stores tensors as they are, and what is packed
    tightly can be a thousand times as large.

    Raises:
        ModelError: it is cut off, is something else, or holds more than that. The message is ours: torch's recommends
            to load such a file without the check.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > path.stat().st_size:
                raise ValueError(f"{unpacked} bytes packed into {path.stat().st_size}; torch.save packs nothing")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, *UNREADABLE) as error:
        raise _no_tensors(path, error) from error


def _no_tensors(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path}: not a file of tensors, or cut off ({_reason_of(path, error)}). Nothing in it was executed. "
        "Expected a state dict saved by torch.save, or .safetensors; download it again."
    )


def _reason_of(path: Path, error: Exception) -> str:
    """Why a file is no file of tensors, in our words.

    Raises:
        OSError: the disk refused to read it.
    """
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # torch seeks before a cut-off file
        raise error
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, in place of the file it stands for"
    if start.lstrip()[:1] == b"<":
        return "a web page, or XML"
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        return (
            f"it names {named[1]}, and only tensors are loaded" if named else "a pickle of something else than tensors"
        )
    if isinstance(error, (ValueError, SafetensorError)):
        return first_line(error)
    return type(error).__name__


def _check_name(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{path}: expected weights as {', '.join(SUFFIXES)}, got the suffix {path.suffix!r}.")
    if not path.is_file():
        raise ModelError(f"{path}: no such file of weights. Set weights.path to an existing one.")


def _downloaded(url: str, digest: str, limits: DownloadSettings) -> Path:
    """The file at `url` in torch's cache, downloaded where it is not there yet."""
    name = PurePosixPath(urlsplit(url).path).name
    if PurePosixPath(name).suffix.lower() not in SUFFIXES:
        raise ModelError(f"{url}: expected an address that ends in {', '.join(SUFFIXES)}.")
    # Files of other publishers share names like model.safetensors; torchvision's carry their digest.
    own = digest[:8] in name and len(name) <= _LONGEST_NAME
    target = Path(torch.hub.get_dir(), "checkpoints", name if own else f"{digest[:16]}-{name[-_LONGEST_NAME:]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{target}.lock", timeout=limits.total_timeout_s + limits.timeout_s):
            if not target.exists():  # ranks and parallel trials want it at the same time
                instead = "weights=file weights.path=FILE"
                download(Wanted(url, digest, "sha256", "weights.sha256", instead), target, limits)
    except Timeout as error:
        raise ModelError(f"{target}: another process is downloading it and does not end. End that one.") from error
    return target


def _fresh_heads(
    network: Network, own: Mapping[str, torch.Tensor], published: Mapping[str, torch.Tensor], *, with_heads: bool
) -> set[str]:
    """The tensors of the heads that were published for other classes."""
    fresh: set[str] = set()
    for head in (network.head, *network.auxiliary_heads):
        names = {name for name in own if name.startswith(f"{head}.")}
        if not with_heads or any(name in published and published[name].shape != own[name].shape for name in names):
            fresh |= names
    return fresh


def _first_convolution(network: nn.Module) -> str | None:
    """Name of the weight of the first convolution, in the order of registration."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{name}.weight"
    return None


def _fitted(given: torch.Tensor, own: torch.Tensor, *, adaptable: bool) -> torch.Tensor | None:
    """`given` as `own` can take it over, of its dtype; None where the shapes do not allow it."""
    if given.shape == own.shape:
        return given.to(own.dtype)
    adapted = _adapt_channels(given, own.shape) if adaptable else None
    return None if adapted is None else adapted.to(own.dtype)


def _adapt_channels(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """`weight` (out, in, kH, kW) for the input channels of `shape`, None where it is not a matter of channels alone."""
    if weight.ndim != 4 or weight.shape[0] != shape[0] or weight.shape[2:] != shape[2:]:
        return None
    published, wanted = weight.shape[1], shape[1]
    if wanted == 1:
        return weight.sum(dim=1, keepdim=True)
    if wanted > published:
        return weight[:, torch.arange(wanted) % published] * (published / wanted)
    return None


def _shown_names(parts: list[str], separator: str) -> str:
    more = f"{separator}and {len(parts) - 5} more" if len(parts) > 5 else ""
    return separator.join(parts[:5]) + more
