"""The page of `retinue serve`: one document without anything that it would have to load."""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent


def page_and_policy(*, shows_similar: bool) -> tuple[str, str]:
    """The page as HTML, and its Content-Security-Policy: this style and this script, and requests to this server.

    Args:
        shows_similar: whether it asks for the nearest training images, too.
    """
    package = files("retinue")
    style = package.joinpath("reports", "style.css").read_text("utf-8") + (_FOLDER / "page.css").read_text("utf-8")
    numbers = package.joinpath("dashboard", "numbers.js").read_text("utf-8")
    script = numbers + (_FOLDER / "page.js").read_text("utf-8")
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("page.html.j2").render(
        style=Markup(style), script=Markup(script), shows_similar=shows_similar
    )
    allowed = f"script-src {_policy_digest(script)}; style-src {_policy_digest(style)}"
    policy = (
        f"default-src 'none'; {allowed}; img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return text, policy


def _policy_digest(content: str) -> str:
    """What a policy calls an inline style or script of this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
