"""The threshold curve as a picture of its own: the drawing of the report, with colours and a legend."""

from __future__ import annotations

from pathlib import Path

from stream_cluster import files
from stream_cluster.errors import InputError
from stream_cluster.snapshot.report.charts import HEIGHT, WIDTH, Curve, curve_svg

SUFFIX = ".svg"
_LEGEND_HEIGHT = 34
_LEGEND = {"clusters": "clusters", "singletons": "of a single object", "share": "share of the largest"}
_LEGEND_STEP = 170

_STYLE = """
svg { --ink: #1d2327; --quiet: #5c6770; --line: #dde2e6; --paper: #fff; --blue: #1f5fae; --red: #b4451f;
  background: var(--paper); font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6eaed; --quiet: #a2adb5; --line: #38424a; --paper: #15191c;
    --blue: #7db3f0; --red: #f0936a; }
}
text { fill: var(--quiet); }
.y { text-anchor: end; }
.x { text-anchor: middle; }
.grid { stroke: var(--line); }
path { fill: none; stroke-linejoin: round; }
path.clusters { stroke: var(--blue); stroke-width: 2.25; }
path.singletons { stroke: var(--quiet); stroke-width: 1.5; stroke-dasharray: 5 4; }
path.share { stroke: var(--red); stroke-width: 1.75; fill: var(--red); fill-opacity: .12; }
line.chosen { stroke: var(--ink); stroke-width: 1.5; }
line.cliff { stroke: var(--red); stroke-width: 1.5; stroke-dasharray: 3 3; }
rect.cliff { fill: var(--red); opacity: .1; }
text.mark { font-weight: 650; }
text.chosen { fill: var(--ink); }
text.cliff { fill: var(--red); }
"""


def check_picture(target: Path) -> None:
    """Find out before the work, not after it, that the name is of another format. Raises InputError."""
    if target.suffix.lower() != SUFFIX:
        raise InputError(f"--plot {target}: found the ending {target.suffix!r}, expected {SUFFIX}")


def write_curve(curve: Curve, target: Path) -> None:
    """Write the curve as SVG, light or dark as its viewer is. Equal curves give equal bytes.

    Raises:
        InputError: the file cannot be written.
    """
    # The drawing begins with its own <svg ...>, which belongs to the page.
    _, _, drawing = curve_svg(curve).partition(">")
    legend = "".join(
        f'<path class="{kind}" d="M{64 + number * _LEGEND_STEP} -20h24"/>'
        f'<text x="{96 + number * _LEGEND_STEP}" y="-16">{text}</text>'
        for number, (kind, text) in enumerate(_LEGEND.items())
    )
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {-_LEGEND_HEIGHT} {WIDTH} '
        f'{HEIGHT + _LEGEND_HEIGHT}" width="{WIDTH}" height="{HEIGHT + _LEGEND_HEIGHT}" role="img" '
        f'aria-labelledby="curve-title curve-text">\n<style>{_STYLE}</style>\n{legend}{drawing}\n'
    )
    try:
        with files.create(target) as file:
            file.write(picture.encode())
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
