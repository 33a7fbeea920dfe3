"""Reports of made-up clusters, without a state: what a browser has to cope with."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw

from stream_cluster.config import load_settings
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.snapshot.clusters import number_clusters
from stream_cluster.snapshot.report.charts import Curve
from stream_cluster.snapshot.report.facts import UNKNOWN_TIME, Facts
from stream_cluster.snapshot.report.listing import Shown
from stream_cluster.snapshot.report.merged import merged_by_components
from stream_cluster.snapshot.report.write import PageContent, make_page
from stream_cluster.snapshot.selection import PackedStrings

T0_US = 1_777_000_000_000_000
HOSTILE = (
    "<script>document.title='owned'</script></script><!--\"'`&amp;</title></style>"
    "\u202egpj.exe\u2066\u0000\n{{style}}<img src=x onerror=alert(1)>" + "x" * 10_000
)


def small_picture(person: int, photo: int) -> bytes:
    """A JPEG that shows whose it is."""
    image = Image.new(
        "RGB", (96, 96), tuple(int(v) for v in np.random.default_rng(person).integers(60, 200, 3))
    )
    draw = ImageDraw.Draw(image)
    draw.ellipse((24, 14, 72, 74), fill=(225, 190 - photo % 5 * 8, 160))
    draw.text((40, 78), str(person), fill=(255, 255, 255))
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def sizes_of(clusters: int, seed: int = 1) -> list[int]:
    """Sizes with a heavy tail, three or four objects a cluster on average."""
    random = np.random.default_rng(seed)
    return np.minimum(random.zipf(2.2, clusters), 3000).tolist()


def content_of(sizes, *, pictures: bool = False, hostile: bool = False, warned: bool = True) -> PageContent:
    """A page's content for clusters of these sizes."""
    random = np.random.default_rng(5)
    n = sum(sizes)
    labels = random.permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
    clusters = number_clusters(labels)
    time_us = T0_US + np.sort(random.integers(0, 86_400_000_000 * 3, n))
    time_us[n - n // 50 :] = UNKNOWN_TIME
    sources = [HOSTILE if hostile and number == 0 else f"cam{number}" for number in range(12)]
    facts = Facts(
        time_us,
        (np.zeros(n) if hostile else random.integers(-1, 12, n)).astype(np.int32),
        sources,
        np.where(random.random(n) < 0.8, random.random(n), np.nan).astype(np.float32),
    )
    ids = PackedStrings(
        HOSTILE + str(number) if hostile else f"{number:08x}-51e0-4a77-b0f1-{number * 7919 % 2**48:012x}"
        for number in range(n)
    )
    image = (np.arange(n) % 17 > 0).astype(np.int8) - 1 if pictures else np.full(n, -1, np.int8)
    shown = Shown(ids, clusters, _quality(clusters, random), facts, ["jpg"] if pictures else [], image)
    return PageContent(
        manifest=manifest_of(clusters, n, pictures=pictures, hostile=hostile),
        shown=shown,
        warnings=_warnings(shown, hostile=hostile) if warned and n else [],
        curve=curve_of(n, len(sizes)),
        tracks_of=lambda positions: [HOSTILE if hostile else f"track-{p // 5}" for p in positions.tolist()],
        image_of=lambda position: small_picture(int(clusters.numbers[position]), position),
    )


def _warnings(shown, *, hostile):
    share = shown.clusters.sizes[0] / len(shown.ids)
    text = f"Cluster 0 holds {share:.0%} of the objects, held together by 3 bridges."
    named = [shown.ids[position] for position in shown.clusters.members(0)[:3].tolist()]
    return [
        {"code": "large_cluster", "cluster": 0, "objects": named, "message": HOSTILE if hostile else text}
    ]


def _quality(clusters, random):
    """Figures of clusters with the shapes that the snapshot's have."""
    count, n = len(clusters), len(clusters.numbers)
    several = clusters.sizes > 1
    oldest = clusters.order[clusters.starts[:-1]] if n else np.empty(0, np.int64)
    youngest = clusters.order[clusters.starts[1:] - 1] if n else np.empty(0, np.int64)
    return SimpleNamespace(
        cohesion=np.where(several, random.uniform(0.55, 0.98, count), 1.0).astype(np.float32),
        weakest_link=np.where(several, random.uniform(0.52, 0.8, count), np.nan).astype(np.float32),
        weakest_a=np.where(several, oldest, -1),
        weakest_b=np.where(several, youngest, -1),
        bridges=np.where(clusters.sizes > 40, random.integers(0, 4, count), 0).astype(np.int32),
        share=clusters.sizes / max(1, n),
        sampled=np.zeros(count, bool),
        centrality=random.uniform(0.4, 1, n).astype(np.float32),
    )


def manifest_of(clusters, n, *, pictures, hostile):
    """A manifest as an archive has it."""
    text = HOSTILE if hostile else None
    singletons = int((clusters.sizes == 1).sum())
    counts = {
        "objects_received": n + 12, "duplicates": 12, "deleted": 0, "objects": n, "filtered_out": 0,
        "removed_by_filter": {}, "dated_after_the_task": 0, "selected": n, "clusters": len(clusters),
        "singletons": singletons, "largest_cluster": int(clusters.sizes[0]) if n else 0,
        "records_rejected": 3,
    }  # fmt: skip
    if pictures:
        faults = ["no_reference", "no_root", "refused", "missing", "unreachable", "timeout", "too_large",
                  "wrong_type", "truncated", "over_total_limit"]  # fmt: skip
        counts["images"] = {"wanted": n, "saved": n - n // 17, **dict.fromkeys(faults, 0), "missing": n // 17}
    return {
        "software": {"name": "stream-cluster", "version": "0.1.0"},
        "task_id": text or "7d5e0c1a", "account_id": text or "acme", "description": text or "Gate 4, April",
        "request": {"filters": {"sources": [text or "cam7", "cam8"], "age__gte": 18}},
        "parameters": {
            "object_type": "event", "descriptor_type": "face", "descriptor_version": 62, "dimension": 512,
            "threshold": 0.52, "threshold_cosine": 0.52, "similarity": {"scale": "cosine"},
            "linkage": "components", "min_quality": None, "cannot_link": None, "use_track_info": True,
            "save_images": pictures, "columns": [],
        },
        "method": "forest",
        "as_of": {"topic": text or "events", "partition": 3, "next_offset": 981_223},
        "counts": counts,
    }  # fmt: skip


def as_of_average_linkage(content: PageContent) -> PageContent:
    """The same clusters, of a task with all that goes with average linkage.

    Of the first thirty clusters, components would have merged three each; every fifth object is of low
    quality, and the figures of the first cluster are of a sample.
    """
    shown = content.shown
    clusters, n = shown.clusters, len(shown.ids)
    labels = np.where(clusters.numbers < 30, clusters.numbers // 3, clusters.numbers)
    components = number_clusters(np.unique(labels, return_inverse=True)[1].astype(np.int32))
    low = np.arange(n) % 5 == 0
    shown.quality.sampled[:1] = True
    counts = content.manifest["counts"] | {
        "components": {"clusters": len(components), "largest_cluster": int(components.sizes[0])},
        "low_quality": {"objects": int(low.sum()), "attached": int(low.sum()) - 1, "unattached": 1},
        "cannot_link": {"objects": 40, "frames": 19, "merges_prevented": 7},
        "clusters_sampled": 1,
    }
    parameters = content.manifest["parameters"] | {
        "linkage": "average", "min_quality": 0.25, "cannot_link": "same_frame",
    }  # fmt: skip
    return replace(
        content,
        manifest=content.manifest | {"counts": counts, "parameters": parameters},
        shown=replace(shown, low=low, merged=merged_by_components(clusters, components)),
    )


def curve_of(n: int, clusters: int) -> Curve:
    """A curve of the usual form: all in one cluster below the cliff, each alone at 1."""
    thresholds = np.linspace(0.35, 1, 131)
    rise = 1 / (1 + np.exp(-(thresholds - 0.66) * 14))
    count = np.maximum(1, (clusters * 0.4 + (n - clusters * 0.4) * rise)).astype(np.int64)
    largest = np.maximum(1, n * (0.75 / (1 + np.exp((thresholds - 0.45) * 60)) + 0.02 * (1 - rise))).astype(
        np.int64
    )
    return Curve(thresholds, count, (count * rise).astype(np.int64), largest, n, 0.52, 0.466)


def write_page(target: Path, content: PageContent, **settings) -> dict[str, int]:
    """Write the page, and what it holds."""
    report = load_settings(None, {}, {f"page.{name}": value for name, value in settings.items()}).page
    blocks, counts = make_page(content, report, interrupt=Interrupt(), progress=no_progress)
    target.write_bytes(b"".join(blocks))
    return counts
