"""The page: one HTML file that loads nothing and lets nothing else run."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from retinue.pipeline.numbers import figure

FOLDER = Path(__file__).parent


def render_report(content: Mapping[str, Any]) -> str:
    """The page as HTML. Everything in `content` is escaped unless it is Markup.

    Args:
        content: what the page says, as `contents.content` makes it.
    """
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    environment.filters["figure"] = figure
    style = (FOLDER / "style.css").read_text("utf-8")
    script = (FOLDER / "script.js").read_text("utf-8")
    template = environment.get_template("report.html.j2")
    return template.render(content, style=Markup(style), script=Markup(script), policy=security_policy(script)) + "\n"


def security_policy(script: str) -> str:
    """The Content-Security-Policy under which `script` runs, and nothing else; images come as data URIs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
