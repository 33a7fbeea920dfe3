"""What is read first: the request in words, warnings, figures, and how the counts add up. All of it HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stream_cluster.snapshot.images.faults import ImageFault
from stream_cluster.snapshot.report.text import escaped, foreign
from stream_cluster.snapshot.report.words import request_in_words

_MOST_NAMED = 8
_WARNINGS_AT_ONCE = 3
_LONGEST_TITLE = 100
# Counts that have a row of their own, or belong to one.
_SPOKEN = frozenset(
    {
        "objects_received",
        "duplicates",
        "deleted",
        "objects",
        "filtered_out",
        "removed_by_filter",
        "dated_after_the_task",
        "selected",
        "clusters",
        "singletons",
        "largest_cluster",
        "records_rejected",
        "without_descriptor",
        "components",
        "images",
        "low_quality",
        "cannot_link",
        "clusters_sampled",
    }
)


def title(manifest: Mapping[str, Any]) -> str:
    """What the page is called; no HTML."""
    description = manifest["description"]
    if description and len(description) <= _LONGEST_TITLE:
        return str(description)
    return f"{manifest['parameters']['descriptor_type'].capitalize()} clusters of {manifest['account_id']}"


def intro(manifest: Mapping[str, Any]) -> str:
    """Heading and the request in words."""
    heading, description = title(manifest), manifest["description"] or ""
    more = "" if description in {"", heading} else f"<p class=description>{foreign(description, 1024)}</p>\n"
    return (
        f"<h1>{foreign(heading)}</h1>\n{more}<p class=request>{request_in_words(manifest)}</p>\n"
        f"{_compared(manifest)}<p class=stamp>{_stamp(manifest)}</p>"
    )


def _compared(manifest: Mapping[str, Any]) -> str:
    """What the other linkage would have done."""
    counts = manifest["counts"]
    if (components := counts.get("components")) is None:
        return ""
    merged = counts["clusters"] - components["clusters"]
    if not merged:
        return "<p class=note>Connected components at this threshold are the same clusters.</p>\n"
    share = components["largest_cluster"] / max(1, counts["selected"])
    return (
        f"<p class=note>Connected components at this threshold would have merged these "
        f"{counts['clusters']:,} clusters into {components['clusters']:,}, the largest of "
        f"{components['largest_cluster']:,} objects ({share:.1%}). Each card says with how "
        "many others its cluster would be one.</p>\n"
    )


def _stamp(manifest: Mapping[str, Any]) -> str:
    as_of, software = manifest["as_of"], manifest["software"]
    if as_of is None:
        point = "Made from files"
    else:
        topic = foreign(str(as_of["topic"]))
        point = f"As of offset {as_of['next_offset']:,} of {topic}, partition {as_of['partition']}"
    return (
        f"{point} · task {foreign(manifest['task_id'])} · {escaped(software['name'])} "
        f"{escaped(software['version'])} · all times are UTC"
    )


def warning_list(warnings: Sequence[Mapping[str, Any]]) -> str:
    """Each warning with the objects that it names, and a way to its cluster."""
    rest = "".join(_warning(one) for one in warnings[_WARNINGS_AT_ONCE:])
    if rest:
        more = f"{len(warnings) - _WARNINGS_AT_ONCE:,} more of such clusters"
        rest = f"<li><details><summary>{more}</summary><ul class=warnings>{rest}</ul></details>"
    return "".join(_warning(one) for one in warnings[:_WARNINGS_AT_ONCE]) + rest


def _warning(one: Mapping[str, Any]) -> str:
    named = [*one.get("objects", ())]
    objects = "".join(f"<li>{foreign(object_id)}" for object_id in named[:_MOST_NAMED])
    if len(named) > _MOST_NAMED:
        objects += f"<li class=more>{len(named) - _MOST_NAMED:,} more in manifest.json"
    objects = f"<ul class=ids>{objects}</ul>" if objects else ""
    cluster = one.get("cluster")
    button = (
        ""
        if cluster is None
        else f'<button type=button data-open="{cluster}">Open cluster {cluster}</button>'
    )
    return f"<li class=warning><div><p>{escaped(one['message'], 1024)}</p>{objects}</div>{button}</li>"


def tiles(counts: Mapping[str, Any]) -> str:
    """The main figures."""
    selected, clusters, singletons = counts["selected"], counts["clusters"], counts["singletons"]
    of_objects = max(1, selected)
    parts = [
        _tile(
            "Objects",
            selected,
            f"of {counts['objects']:,} held" if counts["filtered_out"] else "all that are held",
        ),
        _tile("Clusters", clusters, f"{clusters - singletons:,} of two or more"),
        _tile("Singletons", singletons, f"{singletons / of_objects:.1%} of the objects, alone"),
        _tile(
            "Largest cluster",
            counts["largest_cluster"],
            f"{counts['largest_cluster'] / of_objects:.1%} of the objects",
        ),
    ]
    if (images := counts.get("images")) is not None:
        parts.append(_tile("Images", images["saved"], f"of {images['wanted']:,} objects"))
    if (components := counts.get("components")) is not None:
        parts.append(
            _tile(
                "Connected components",
                components["clusters"],
                f"the largest of {components['largest_cluster']:,} objects",
            )
        )
    if (low := counts.get("low_quality")) is not None:
        parts.append(
            _tile("Low quality", low["objects"], f"{low['attached']:,} attached, {low['unattached']:,} left")
        )
    if (apart := counts.get("cannot_link")) is not None:
        parts.append(_tile("Merges prevented", apart["merges_prevented"], "by people of one frame"))
    return "".join(parts)


def _tile(name: str, figure: int, note: str) -> str:
    return f"<div class=tile><dt>{name}<dd><strong>{figure:,}</strong> <span>{note}</span></div>"


def count_rows(counts: Mapping[str, Any]) -> str:
    """Rows of a table in which each sum stands below what adds up to it."""
    grouped = counts["selected"] - counts["singletons"]
    removed = {**counts["removed_by_filter"]}
    rows = [
        _row("Objects received", counts["objects_received"]),
        _row("received before", -counts["duplicates"], part=True),
        _row("deleted since", -counts["deleted"], part=True),
        _row("Objects held", counts["objects"]),
        *(_row(f"left out by {foreign(name)}", -count, part=True) for name, count in removed.items()),
        *([] if removed else [_row("left out by filters", 0, part=True)]),
        _row("Selected", counts["selected"]),
        _row(f"in {counts['clusters'] - counts['singletons']:,} clusters of two or more", grouped, part=True),
        _row("alone in their clusters", counts["singletons"], part=True),
    ]
    if "without_descriptor" in counts:
        rows.append(
            _row("Others of the account, which have no such descriptor", counts["without_descriptor"])
        )
    rows.append(_row("Rejected records of the account", counts["records_rejected"]))
    if (components := counts.get("components")) is not None:
        rows.append(_row("Connected components at the same threshold", components["clusters"]))
        rows.append(_row("objects of the largest of them", components["largest_cluster"], part=True))
    if (low := counts.get("low_quality")) is not None:
        rows.append(_row("Selected objects below the quality asked for", low["objects"]))
        rows.append(_row("attached to a cluster of others", low["attached"], part=True))
        rows.append(_row("left, alone or on their own track", low["unattached"], part=True))
    if (apart := counts.get("cannot_link")) is not None:
        rows.append(_row("Objects in frames that show several people", apart["objects"]))
        rows.append(_row("frames", apart["frames"], part=True))
        rows.append(_row("merges that this alone prevented", apart["merges_prevented"], part=True))
    if "clusters_sampled" in counts:
        rows.append(_row("Clusters with a weakest link of a sample", counts["clusters_sampled"]))
    if (images := counts.get("images")) is not None:
        rows.append(_row("Images asked for", images["wanted"]))
        rows.append(_row("in the archive", images["saved"], part=True))
        faults = {fault.value: images[fault.value] for fault in ImageFault if images[fault.value]}
        rows += [
            _row(f"left out: {name.replace('_', ' ')}", -count, part=True) for name, count in faults.items()
        ]
    rows += [
        _row(foreign(name.replace("_", " ").capitalize()), value)
        for name, value in counts.items()
        if name not in _SPOKEN and isinstance(value, int)
    ]
    return "".join(rows)


def _row(name: str, count: int, *, part: bool = False) -> str:
    figure = f"{count:,}".replace("-", "\u2212")
    return f"<tr{' class=part' if part else ''}><th scope=row>{name}<td>{figure}"


def parameter_rows(manifest: Mapping[str, Any]) -> str:
    """What was in force, as rows of a description list."""
    parameters = manifest["parameters"]
    scale = parameters["similarity"]
    facts = {
        "Descriptor": f"{parameters['descriptor_type']}, version {parameters['descriptor_version']}, "
        f"{parameters['dimension']} values",
        "Threshold": f"{parameters['threshold']:g}, a cosine of {parameters['threshold_cosine']:.4f}",
        "Scale": ", ".join(f"{name} {value}" for name, value in scale.items() if name != "points"),
        "Linkage": {"components": "connected components", "average": "average"}[parameters["linkage"]],
        "Least quality": "none" if parameters["min_quality"] is None else f"{parameters['min_quality']:g}",
        "Kept apart": "nobody" if parameters["cannot_link"] is None else "objects of one frame",
        "Tracks": "kept together" if parameters["use_track_info"] else "not used",
        "Images": "saved" if parameters["save_images"] else "not asked for",
        "Method": {
            "forest": "from the links kept while objects arrived",
            "rematch": "matched again for this task",
        }[manifest["method"]],
    }
    return "".join(f"<dt>{name}<dd>{escaped(value)}" for name, value in facts.items())
