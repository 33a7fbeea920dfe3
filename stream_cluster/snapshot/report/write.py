"""The page put together: its parts in their order, bounded by bytes, the same for the same snapshot."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import numpy as np

from stream_cluster.config import PageSettings
from stream_cluster.model import Interrupt, Progress
from stream_cluster.snapshot.report import head
from stream_cluster.snapshot.report.charts import Curve, curve_svg, curve_table, size_rows
from stream_cluster.snapshot.report.facts import UNKNOWN_TIME
from stream_cluster.snapshot.report.listing import (
    Listing,
    Positions,
    Shown,
    TracksOf,
    choose_listing,
    cluster_columns,
    encode,
    member_blocks,
    picture_order,
    without_rest,
)
from stream_cluster.snapshot.report.text import escaped, shortened
from stream_cluster.snapshot.report.thumbnails import Thumbnailer

_SCRIPTS = ("data.js", "filter.js", "cards.js", "cluster.js", "start.js")
_BLOCK_PICTURES = 256
# Of the page's bytes: how much the columns may take beside pictures, and without any.
_COLUMN_SHARE_WITH_PICTURES, _COLUMN_SHARE = 0.5, 1.0
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_PICTURE_OVERHEAD_BYTES = 12
_SCRIPT_BYTES = 64


@dataclass(frozen=True, slots=True)
class PageContent:
    """What a page is made of."""

    manifest: Mapping[str, Any]
    """That of the archive, with its counts of images."""
    shown: Shown
    warnings: Sequence[Mapping[str, Any]]
    curve: Curve | None
    """None when there are no links to draw it from."""
    tracks_of: TracksOf
    image_of: Callable[[int], bytes]
    """The saved image of a position."""


def make_page(
    content: PageContent, settings: PageSettings, *, interrupt: Interrupt, progress: Progress
) -> tuple[list[bytes], dict[str, int]]:
    """The page in blocks, and what it holds: `clusters`, `objects`, `thumbnails` and `images_undecodable`.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    with Thumbnailer(settings.thumbnail_px, interrupt) as thumbnailer:
        if bool((content.shown.image >= 0).any()):
            thumbnailer.start()  # while it is chosen what is listed
        return _make_page(content, settings, thumbnailer, interrupt, progress)


def _make_page(
    content: PageContent,
    settings: PageSettings,
    thumbnailer: Thumbnailer,
    interrupt: Interrupt,
    progress: Progress,
) -> tuple[list[bytes], dict[str, int]]:
    progress("page", 0.0)
    shown = content.shown
    curve = None if content.curve is None else content.curve.thinned()
    template = _template(content, curve)
    left = settings.max_bytes - sum(map(len, template)) - 4096
    has_pictures = bool((shown.image >= 0).any())
    budget = int(max(0, left) * (_COLUMN_SHARE_WITH_PICTURES if has_pictures else _COLUMN_SHARE))
    base_us = _base_time_us(shown)
    listing = choose_listing(shown, settings.cluster_members, budget, content.tracks_of)
    blocks, begins = member_blocks(
        shown, listing, content.tracks_of, base_us=base_us, budget_bytes=budget, interrupt=interrupt
    )
    progress("page", 0.3)
    while True:
        listing = without_rest(listing, begins[-1])
        columns = cluster_columns(shown, listing, base_us)
        spent = len(columns) + sum(map(len, blocks)) + _SCRIPT_BYTES * (len(blocks) + 4)
        if spent <= left or len(blocks) < 2:
            break
        # The guess was wrong: the smallest clusters are not listed.
        blocks.pop()
        begins.pop()
    left -= spent
    pictures = _Pictures(content, listing, thumbnailer, left)
    picture_blocks = list(pictures.blocks(progress))
    facts = _page_facts(content, begins, base_us, pictures)
    data = [
        _block("facts", encode(facts)),
        _block("clusters", columns),
        *(_block(f"members-{number}", block) for number, block in enumerate(blocks)),
        *(_block(f"pictures-{number}", block) for number, block in enumerate(picture_blocks)),
        *([] if curve is None else [_block("curve", encode(curve.columns()))]),
    ]
    progress("page", 1.0)
    counts = {
        "clusters": len(listing),
        "objects": len(listing.members),
        "thumbnails": pictures.made,
        "images_undecodable": pictures.undecodable,
    }
    return [template[0], *data, template[1]], counts


def _base_time_us(shown: Shown) -> int:
    known = shown.facts.time_us[shown.facts.time_us != UNKNOWN_TIME]
    return int(known.min()) // 1000 * 1000 if len(known) else 0


def _page_facts(content: PageContent, begins: list[int], base_us: int, pictures: _Pictures) -> dict[str, Any]:
    """What the script has to know beside columns."""
    manifest, shown = content.manifest, content.shown
    return {
        "objects": len(shown.ids),
        "clusters": len(shown.clusters),
        "baseMs": base_us // 1000,
        "sources": [shortened(name) for name in shown.facts.sources],
        "extensions": list(shown.extensions),
        "memberBlocks": begins,
        "pictureBlock": _BLOCK_PICTURES,
        "pictured": pictures.pictured,
        "idName": f"{manifest['parameters']['object_type']}_id",
        "threshold": manifest["parameters"]["threshold"],
        "average": manifest["parameters"]["linkage"] == "average",
        "sampled": np.flatnonzero(shown.quality.sampled).tolist(),
        "warned": sorted({one["cluster"] for one in content.warnings if one.get("cluster") is not None}),
    }


class _Pictures:
    """Thumbnails of listed members, as many as fit."""

    def __init__(
        self, content: PageContent, listing: Listing, thumbnailer: Thumbnailer, budget_bytes: int
    ) -> None:
        self._content = content
        self._listing = listing
        self._thumbnailer = thumbnailer
        self._left = budget_bytes
        self.pictured: list[int] = []
        """Which listed member each thumbnail is of."""
        self.undecodable = 0

    @property
    def made(self) -> int:
        """Thumbnails in the page."""
        return len(self.pictured)

    def blocks(self, progress: Progress) -> Iterator[bytes]:
        """JSON lists of JPEGs in base64."""
        order = picture_order(self._content.shown, self._listing)
        if not len(order):
            return
        block: list[str] = []
        for index, text in self._texts(order, progress):
            self.pictured.append(index)
            block.append(text)
            if len(block) == _BLOCK_PICTURES:
                yield encode(block)
                block = []
        if block:
            yield encode(block)

    def _texts(self, order: Positions, progress: Progress) -> Iterator[tuple[int, str]]:
        members = self._listing.members

        def images() -> Iterator[Callable[[], bytes]]:
            for position in members[order].tolist():
                yield partial(self._content.image_of, position)

        for index, made in zip(order.tolist(), self._thumbnailer.make(images()), strict=False):
            if not made:
                self.undecodable += 1
                continue
            text = base64.b64encode(made).decode()
            self._left -= len(text) + _PICTURE_OVERHEAD_BYTES
            if self._left < 0:
                return
            progress("page", 0.3 + 0.7 * (self.made / len(order)))
            yield index, text


def _block(name: str, data: bytes) -> bytes:
    return b'<script type="application/json" id="data-%s">%s</script>\n' % (name.encode(), data)


def _template(content: PageContent, curve: Curve | None) -> tuple[bytes, bytes]:
    """The page before and after its data."""
    manifest = content.manifest
    style, script = _file("page.css"), "\n".join(_file(name) for name in _SCRIPTS)
    software = manifest["software"]
    warnings = head.warning_list(content.warnings)
    parts = {
        "policy": _policy(style, script),
        "title": escaped(head.title(manifest)),
        "style": style,
        "intro": head.intro(manifest),
        "warnings": f'<ul class=warnings aria-label="Warnings">{warnings}</ul>' if warnings else "",
        "tiles": head.tiles(manifest["counts"]),
        "curve": "" if curve is None else _curve_section(curve, manifest["parameters"]["linkage"]),
        "sizes": size_rows(content.shown.clusters.sizes),
        "counts": head.count_rows(manifest["counts"]),
        "parameters": head.parameter_rows(manifest),
        "footer": f"Made by {escaped(software['name'])} {escaped(software['version'])}. All times are UTC. "
        "Everything is in clusters.jsonl, report.csv and manifest.json of the same archive.",
        "script": script,
    }
    before, after = (
        _PLACE.sub(lambda match: parts[match[1]], text).encode()
        for text in _file("page.html").split("{{data}}\n")
    )
    return before, after


def _curve_section(curve: Curve, linkage: str) -> str:
    # Of average linkage there is no such curve: its clusters at one threshold do not tell those at another.
    name = "clusters" if linkage == "components" else "connected components"
    parts = {
        "svg": curve_svg(curve, name),
        "rows": curve_table(curve),
        "heading": f"{name.capitalize()} at every threshold",
        "name": name,
    }
    return _PLACE.sub(lambda match: parts[match[1]], _file("curve.html"))


def _file(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is loaded but images beside the page; nothing runs but what is in it."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (style, script)
    ]
    return (
        f"default-src 'none'; style-src {hashes[0]}; script-src {hashes[1]}; img-src data: file: 'self'; "
        "base-uri 'none'; form-action 'none'"
    )
