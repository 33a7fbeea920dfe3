"""The request in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stream_cluster.snapshot.report.text import foreign

_SINGULAR = {
    "cities": "city",
    "gender": "gender",
    "headwear": "headwear",
    "clothing": "clothing",
    "liveness": "liveness",
    "user_data": "user data",
    "list_id": "list",
    "geo_position": "position",
    "meta": "meta",
}
_MOST_VALUES = 5


def request_in_words(manifest: Mapping[str, Any]) -> str:
    """What was asked for, as HTML of a paragraph."""
    parameters, request = manifest["parameters"], manifest["request"]
    kind = parameters["descriptor_type"]
    subject = {
        "event": f"Events with a {kind} descriptor (version {parameters['descriptor_version']})",
        "face": f"Faces with a descriptor of version {parameters['descriptor_version']}",
    }[parameters["object_type"]]
    conditions = [_condition(name, value) for name, value in request["filters"].items()]
    which = f", only those with {_listed(conditions)}" if conditions else ", all of them"
    return (
        f"{subject} of the account {foreign(manifest['account_id'])}{which}. {_linkage(parameters)}"
        f"{_tracks(parameters)}{_gate(parameters)}{_apart(parameters)}"
    )


def _linkage(parameters: Mapping[str, Any]) -> str:
    threshold = f"<strong>{parameters['threshold']:g}</strong>"
    scale = parameters["similarity"].get("scale", "cosine")
    if scale != "cosine":
        threshold += f" (a cosine of {parameters['threshold_cosine']:.4f})"
    if parameters["linkage"] == "average":
        merging = "Groups merge while the average similarity of their members is above"
        return f"{merging} {threshold} (average linkage)."
    return f"Two are linked when more similar than {threshold}; what links connect is one cluster."


def _tracks(parameters: Mapping[str, Any]) -> str:
    return " Objects of one track are kept together." if parameters["use_track_info"] else ""


def _gate(parameters: Mapping[str, Any]) -> str:
    if parameters["min_quality"] is None:
        return ""
    return (
        f" Objects of a quality below {parameters['min_quality']:g} form no cluster: each joins the "
        "one that it is most similar to, or stays by itself."
    )


def _apart(parameters: Mapping[str, Any]) -> str:
    if parameters["cannot_link"] is None:
        return ""
    return " Objects of one frame and different tracks are different people, and are never put together."


def _condition(name: str, value: Any) -> str:
    field, _, bound = name.partition("__")
    spoken = foreign(_singular(field) if not bound else field.replace("_", " "))
    if bound:
        return f"{spoken} {'from' if bound == 'gte' else 'below'} {_value(value)}"
    if not isinstance(value, list):
        return f"no {spoken}" if value is None else f"{spoken} {_value(value)}"
    shown = [_value(one) for one in value[:_MOST_VALUES]]
    if len(value) > _MOST_VALUES:
        shown.append(f"{len(value) - _MOST_VALUES:,} more")
    return f"{spoken} {_listed(shown, 'or')}"


def _singular(field: str) -> str:
    name = _SINGULAR.get(field, field.removesuffix("s"))
    return name.replace("_", " ")


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return foreign(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _listed(parts: list[str], word: str = "and") -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}"
