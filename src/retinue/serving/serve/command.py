"""The command `retinue serve`."""

import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from retinue.pipeline.errors import SettingsError
from retinue.serving.serve.options import ServeOptions

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def run(found: Callable[[], AbstractContextManager[Path]], options: ServeOptions) -> None:
    """Serves a model until SIGTERM or Ctrl-C.

    Args:
        found: gives the folder of its bundle for as long as it is loaded; is called again for each reload.
        options: see `ServeOptions`.

    Raises:
        SettingsError: a package is missing, or an option cannot be used.
        RetinueError: the model cannot be loaded.
    """
    check_packages()
    options.check()
    # Only now, for they need these packages.
    from retinue.serving.serve.app import make_app
    from retinue.serving.serve.connections import GracefulServer, listening_socket, uvicorn_config
    from retinue.serving.serve.service import ModelService

    with listening_socket(options) as listening:
        service = ModelService(found, options)
        config = uvicorn_config(make_app(service, options), options)
        server = GracefulServer(config, service)
        with server.capture_signals():  # who has read the address may end it in order
            _announce(service.model.name, len(service.model.bundle.classes), options, listening.getsockname()[1])
            if service.model.explainer is None:
                print(f"warning: /explain answers 501: {service.model.why_no_maps}", file=sys.stderr, flush=True)
            server.run([listening])


def check_packages() -> None:
    """Refuses to serve without the packages that it takes.

    Raises:
        SettingsError: the message says which are missing.
    """
    missing = [name.replace("_", "-") for name in _PACKAGES if importlib.util.find_spec(name) is None]
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
