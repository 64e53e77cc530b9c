"""What `retinue serve` is told."""

from dataclasses import dataclass
from pathlib import Path

from retinue.pipeline.errors import SettingsError
from retinue.pipeline.numbers import significant

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SHORTEST_KEY = 16
_LONGEST_KEY = 4096


@dataclass(frozen=True)
class ServeOptions:
    """How a model is served, and what one client may cost.

    Attributes:
        host: name or address that is listened at.
        port: 0 takes a free one.
        device: torch's name of what computes.
        explainer: name of what makes the maps.
        max_batch_size: images of a forward pass, >= 1.
        max_delay_ms: the longest that an image waits for others to share its forward pass, while the network is idle.
        decoders: processes that decode, >= 1.
        training_images: folder of the training split, whose images nearest to a given one are shown; None: none are.
        max_queue: images that are being decoded, wait or are computed, all requests together.
        max_client_images: the same of one client, told by its address; None: no limit of its own.
        max_images: images of one request.
        max_body_mb: size of one request's body, in MB of 10⁶ bytes.
        max_pending_mb: sizes of all bodies that are held at once, in MB.
        read_timeout_s: the longest that the body of a request may take to arrive.
        head_timeout_s: the longest that the head of a request may take.
        api_key_file: file with the key that requests must have; None: they need none.
        tls_certificate: PEM file with the chain of certificates; None: HTTP.
        tls_key: PEM file with its private key.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "cpu"
    explainer: str = "gradcam"
    max_batch_size: int = 32
    max_delay_ms: float = 5.0
    decoders: int = 1
    training_images: Path | None = None
    max_queue: int = 256
    max_client_images: int | None = None
    max_images: int = 32
    max_body_mb: float = 32.0
    max_pending_mb: float = 256.0
    read_timeout_s: float = 30.0
    head_timeout_s: float = 10.0
    api_key_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def check(self) -> None:
        """Refuses options that contradict each other.

        Raises:
            SettingsError: the message says which.
        """
        if self.max_images > self.max_queue:
            raise SettingsError(
                f"--max-images {self.max_images}: more than --max-queue {self.max_queue}, so that a request of so many "
                "would always be refused. Raise the one or lower the other."
            )
        if self.max_client_images is not None and self.max_images > self.max_client_images:
            raise SettingsError(
                f"--max-images {self.max_images}: more than --max-client-images {self.max_client_images}, so that a "
                "request of so many would always be refused. Raise the one or lower the other."
            )
        if self.max_body_mb > self.max_pending_mb:
            raise SettingsError(
                f"--max-body-mb {significant(self.max_body_mb)}: more than --max-pending-mb "
                f"{significant(self.max_pending_mb)}, so that such a body would always be refused. Raise the one or "
                "lower the other."
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise SettingsError("--tls-certificate and --tls-key belong together. Give both, or none for HTTP.")

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach the service."""
        return self.host in _LOOPBACK

    def api_key(self) -> str | None:
        """The key in `api_key_file`, without blanks around it; None where requests need none.

        Raises:
            SettingsError: the file cannot be read, or holds no key.
        """
        if self.api_key_file is None:
            return None
        where, ask = f"--api-key-file {self.api_key_file}", "Write a random key to it: `openssl rand -hex 32`."
        try:
            with self.api_key_file.open("rb") as file:
                key = file.read(_LONGEST_KEY + 1).decode("ascii").strip()
        except OSError as error:
            raise SettingsError(f"{where}: cannot be read ({error.strerror}). {ask}") from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{where}: holds other characters than ASCII. {ask}") from error
        if not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY or any(sign.isspace() for sign in key):
            raise SettingsError(
                f"{where}: expected one key of {_SHORTEST_KEY} to {_LONGEST_KEY} characters without blanks. {ask}"
            )
        return key
