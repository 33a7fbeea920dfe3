"""`stream-cluster cluster`: files in, archive out, no broker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stream_cluster.cli import options
from stream_cluster.cli.display import engine_text, print_facts, print_json, progress_display, warn_rejected
from stream_cluster.cli.failures import EXIT_CODES_HELP
from stream_cluster.cli.signals import stoppable
from stream_cluster.errors import InputError

if TYPE_CHECKING:
    from stream_cluster.offline.run import OfflineResult

EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster cluster events.jsonl.gz --descriptor-type face --threshold 0.52 --output faces.zip

stream-cluster cluster events.jsonl.gz --output faces.zip --save-images --image-root photos

zcat *.gz | stream-cluster cluster - --threshold 0.6 --columns create_time,source --output out.zip --json

stream-cluster cluster vectors.npz --threshold 0.6 --output out.zip

An .npz holds `ids`, strings of shape (n,), and `descriptors`, float32 (n, dim).

{EXIT_CODES_HELP}"""

_TASK_ID = "cluster"
_TOTALS = {"wanted", "saved"}
_GROUPS = {
    "read": ("reading", ""),
    "select": ("clustering", "selecting"),
    "match": ("clustering", "matching"),
    "linkage": ("clustering", "merging groups"),
    "clusters": ("clustering", "writing clusters"),
    "report": ("clustering", "writing the report"),
    "images": ("clustering", "saving images"),
    "page": ("clustering", "writing the page"),
}


def cluster(
    files: Annotated[
        list[str],
        typer.Argument(
            help="JSON lines, gzipped or not, `-` for standard input, or .npz.", metavar="FILE..."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The archive to write.", metavar="OUT.zip")],
    descriptor_type: options.DescriptorTypeOption = "face",
    threshold: options.ThresholdOption = None,
    account: options.AccountOption = None,
    object_type: options.ObjectTypeOption = "event",
    descriptor_version: options.DescriptorVersionOption = None,
    use_track_info: options.UseTrackInfoOption = False,
    filters: options.FiltersOption = None,
    linkage: options.LinkageOption = "components",
    min_quality: options.MinQualityOption = None,
    cannot_link: options.CannotLinkOption = None,
    engine: Annotated[
        Literal["auto", "exact", "cells"] | None,
        typer.Option(
            "--engine",
            help="How links are found; cells find nearly all of them in a fraction of the time, and auto is "
            "exact unless that takes long. Replaces matching.rematch_engine of the settings.",
            rich_help_panel="What to cluster",
        ),
    ] = None,
    save_images: options.SaveImagesOption = False,
    image_root: Annotated[
        list[str] | None,
        typer.Option(
            "--image-root",
            help="Folder that images are relative to, or `PREFIX/=DIR` for those that begin with PREFIX/; "
            "may be repeated. Replaces images.roots of the settings.",
            metavar="DIR",
            rich_help_panel="The result",
        ),
    ] = None,
    columns: options.ColumnsOption = None,
    html: options.HtmlOption = None,
    task_id: options.TaskIdOption = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Cluster the objects of files into an archive, without a broker.

    The options and the archive are those of the service. Every link above the threshold is found, or with
    cells nearly every one; the result names the engine and the share that it found of a sample.
    The objects are kept in a temporary directory meanwhile (TMPDIR), about as large as their descriptors.
    """
    from stream_cluster.offline.run import cluster_files
    from stream_cluster.offline.sources import find_sources

    if image_root and not save_images:
        raise InputError("--image-root has no effect without --save-images")
    if engine == "cells" and linkage == "average":
        raise InputError("--engine cells misses some links, and --linkage average needs all")
    selection = options.Selection(
        descriptor_type,
        threshold,
        object_type,
        descriptor_version,
        use_track_info,
        filters,
        linkage,
        min_quality,
        cannot_link,
        save_images,
        columns,
        html,
    )
    # The account is not known yet; any legal one lets the rest be checked before the files are read.
    task = options.make_task(selection, task_id or _TASK_ID, _TASK_ID if account is None else account)
    settings = options.settings_of(
        config, images__roots=_image_roots(image_root), matching__rematch_engine=engine
    )
    sources = find_sources(files)
    with stoppable() as interrupt, progress_display(_GROUPS) as progress:
        result = cluster_files(
            sources,
            task,
            settings,
            output,
            account_id=account,
            vector_version=options.vector_version(descriptor_version, settings, descriptor_type),
            interrupt=interrupt,
            progress=progress,
        )
    _show(result, as_json=as_json)


def _image_roots(given: list[str] | None) -> list[dict[str, Any]] | None:
    """The setting `images.roots` as the options have it; None without an option. Raises ConfigError."""
    from stream_cluster.config.image_roots import directory_roots

    if not given:
        return None
    roots = directory_roots(given)
    for root in roots:
        if not Path(root["path"]).is_dir():
            raise InputError(f"--image-root {root['path']}: found no directory there")
    return roots


def _show(result: OfflineResult, *, as_json: bool) -> None:
    load = result.load
    warn_rejected(load)
    if as_json:
        print_json(_as_dict(result))
        return
    facts: dict[str, Any] = {
        "account": result.account_id,
        "objects": result.counts["selected"],
        "clusters": result.counts["clusters"],
        "singletons": result.counts["singletons"],
        "largest cluster": result.counts["largest_cluster"],
        "threshold": f"{result.snapshot.threshold:g}",
        "engine": engine_text(result.snapshot.matching),
        "duplicates": load.duplicates,
        "filtered out": result.counts["filtered_out"],
        "rejected records": sum(load.rejected.values()),
        "time": ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.timings_s.items()),
    }
    if (components := result.counts.get("components")) is not None:
        facts["connected components"] = (
            f"{components['clusters']:,}, the largest of {components['largest_cluster']:,}"
        )
    if (low := result.counts.get("low_quality")) is not None:
        facts["low quality"] = f"{low['objects']:,}, of which {low['attached']:,} attached to a cluster"
    if (cannot_link := result.counts.get("cannot_link")) is not None:
        facts["merges prevented"] = cannot_link["merges_prevented"]
    if (images := result.counts.get("images")) is not None:
        facts["images"] = _image_facts(images)
    if load.changes:
        facts["updates and deletes"] = load.changes
    if load.of_other_accounts:
        facts["of other accounts"] = load.of_other_accounts
    print_facts(facts)
    typer.echo(str(result.snapshot.archive.path.resolve()))


def _image_facts(images: Mapping[str, int]) -> str:
    lacking = [f"{reason} {count:,}" for reason, count in images.items() if reason not in _TOTALS and count]
    return f"{images['saved']:,} of {images['wanted']:,}" + "".join(f", {text}" for text in lacking)


def _as_dict(result: OfflineResult) -> dict[str, Any]:
    archive, load = result.snapshot.archive, result.load
    return {
        "archive": {
            "path": str(archive.path.resolve()),
            "size_bytes": archive.size_bytes,
            "sha256": archive.sha256,
        },
        "account_id": result.account_id,
        "threshold": result.snapshot.threshold,
        "matching": dict(result.snapshot.matching),
        "counts": dict(result.counts),
        "records": {
            "read": load.records,
            "accepted": load.accepted,
            "duplicates": load.duplicates,
            "changes": load.changes,
            "of_other_accounts": load.of_other_accounts,
            "rejected": dict(load.rejected),
        },
        "timings_s": dict(result.timings_s),
    }
