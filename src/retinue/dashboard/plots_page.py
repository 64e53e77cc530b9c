"""The page that `dvc plots show` fills, with its JavaScript inside.

DVC's own page loads Vega from a CDN and stays blank without a network. DVC takes another one from the setting
plots.html_template; it puts the plots, each a call of `vegaEmbed`, in the place of {plot_divs}.
"""

from pathlib import Path

import vl_convert

VEGA_LITE = "5.21"  # DVC's templates are written for Vega-Lite 5

# The editor that Vega offers to open is a web site.
_EMBED = "window.vegaEmbed = (element, spec) => vegaEmbed(element, spec, {actions: {export: true, editor: false}});"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';
 style-src 'unsafe-inline'; img-src 'self' file: data: blob:">
{refresh_tag}
<title>Plots</title>
<style>
body { margin: 1rem; font: 1rem/1.5 system-ui, sans-serif; background: #fff; color: #222; }
main { display: flex; flex-wrap: wrap; gap: 2rem; }
main > * { max-width: 100%; overflow-x: auto; }
</style>
<script>
(() => {
{vega}
})();
</script>
</head>
<body>
<main>
{plot_divs}
</main>
</body>
</html>
"""


def write_template(path: Path) -> None:
    """Writes the page to `path` (900 kB), and the folder it is in.

    It needs no network and admits none: its content policy refuses every connection.
    """
    bundle = vl_convert.javascript_bundle(_EMBED, vl_version=VEGA_LITE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.replace("{vega}", bundle), "utf-8")
