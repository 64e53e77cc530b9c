"""The command `retinue serve`."""

import importlib.util
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from retinue.pipeline.errors import SettingsError
from retinue.serving.serve.options import ServeOptions

if TYPE_CHECKING:
    from retinue.serving.serve.answers import Answering

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def run_bundle(found: Callable[[], AbstractContextManager[Path]], options: ServeOptions) -> None:
    """Serves a bundle until SIGTERM or Ctrl-C.

    Args:
        found: gives the folder of the bundle for as long as it is loaded; is called again for each reload.
        options: see `ServeOptions`.

    Raises:
        SettingsError: a package is missing, or an option cannot be used.
        RetinueError: the model cannot be loaded.
    """

    def load() -> "Answering":
        from retinue.serving.serve.served_model import ServedModel

        with found() as folder:
            return ServedModel.prepared(
                folder,
                device=options.device,
                explainer=options.explainer,
                training_images=options.training_images,
            )

    _serve_loaded(load, options, _PACKAGES)


def run_exported(path: Path, options: ServeOptions) -> None:
    """Serves an exported file until SIGTERM or Ctrl-C; as `run_bundle`.

    Raises:
        SettingsError: also where an option asks for what the file has not.
    """
    if options.device != "cpu" or options.training_images is not None:
        raise SettingsError("--device and --training-images take a bundle; an exported file computes on the CPU alone.")

    def load() -> "Answering":
        from retinue.serving.serve.served_export import ServedExport

        return ServedExport.prepared(path)

    _serve_loaded(load, options, (*_PACKAGES, "onnxruntime"))


def _serve_loaded(load: "Callable[[], Answering]", options: ServeOptions, packages: tuple[str, ...]) -> None:
    check_packages(packages)
    options.check()
    # Only now, for they need these packages.
    from retinue.serving.serve.app import make_app
    from retinue.serving.serve.connections import GracefulServer, listening_socket, uvicorn_config
    from retinue.serving.serve.service import ModelService

    with listening_socket(options) as listening:
        service = ModelService(load, options)
        config = uvicorn_config(make_app(service, options), options)
        server = GracefulServer(config, service)
        with server.capture_signals():  # who has read the address may end it in order
            _announce(service.model.name, len(service.model.classes), options, listening.getsockname()[1])
            if (reason := service.model.why_not.get("overlay")) is not None:
                print(f"warning: /explain answers 501: {reason}", file=sys.stderr, flush=True)
            server.run([listening])


def check_packages(packages: Iterable[str] = _PACKAGES) -> None:
    """Refuses to serve without `packages`.

    Raises:
        SettingsError: the message says which are missing.
    """
    missing = [name.replace("_", "-") for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(f"retinue serve needs {', '.join(missing)}: pip install 'retinue[serve]'")


def _announce(name: str, num_classes: int, options: ServeOptions, port: int) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    scheme = "http" if options.tls_certificate is None else "https"
    print(f"{name}, {num_classes} classes: {scheme}://{host}:{port}/", flush=True)
    if options.is_loopback:
        return
    if options.api_key_file is None:
        print(
            f"warning: --host {options.host}: whoever reaches this machine may use the model. Give --api-key-file, or "
            "listen at 127.0.0.1.",
            file=sys.stderr,
            flush=True,
        )
    elif options.tls_certificate is None:
        print(
            f"warning: --host {options.host}: the key and the images travel as they are. Give --tls-certificate and "
            "--tls-key, or put a proxy with TLS before it.",
            file=sys.stderr,
            flush=True,
        )
