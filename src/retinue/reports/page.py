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
    """The page of a report as HTML; `contents.content` makes what it says."""
    return rendered("report.html.j2", content)


def rendered(template: str, content: Mapping[str, Any], *, folder: Path = FOLDER) -> str:
    """A page with the report's style, script and security policy. What is in `content` is escaped unless it is Markup.

    Args:
        template: name of a file; it may import `macros.html.j2`.
        content: its variables.
        folder: of the template.
    """
    environment = Environment(loader=FileSystemLoader([folder, FOLDER]), autoescape=True, undefined=StrictUndefined)
    environment.filters["figure"] = figure
    style = (FOLDER / "style.css").read_text("utf-8")
    script = (FOLDER / "script.js").read_text("utf-8")
    page = environment.get_template(template)
    return page.render(content, style=Markup(style), script=Markup(script), policy=security_policy(script)) + "\n"


def write_page(target: Path, text: str) -> int:
    """Puts a page in place when it is whole, in a folder that is made where it is missing; its bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(target)
    return target.stat().st_size


def security_policy(script: str) -> str:
    """The Content-Security-Policy under which `script` runs, and nothing else; images come as data URIs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
