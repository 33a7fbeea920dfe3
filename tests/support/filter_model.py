"""What the selection filters mean, in plain Python over messages, without the product's compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stream_cluster.messages import Descriptor, ObjectMessage, parse_time

_MISSING = object()

# Filters that compare one field of the object: name to (field, how).
ANY_OF = {
    "handler_ids": "handler_id",
    "sources": "source",
    "stream_ids": "stream_id",
    "track_ids": "track_id",
    "external_ids": "external_id",
    "user_data": "user_data",
    "gender": "gender",
    "emotions": "emotion",
    "ethnic_groups": "ethnic_group",
    "masks": "mask",
    "liveness": "liveness",
    "cities": "city",
    "areas": "area",
    "districts": "district",
    "streets": "street",
    "house_numbers": "house_number",
}
ANY_ITEM = {
    "list_id": "list_ids",
    "tags": "tags",
    "headwear": "headwear",
    "clothing": "clothing",
    "backpack": "backpack",
}
OF_TOP_MATCH = {
    "top_matching_candidates_label": "label",
    "top_similar_object_ids": "object_id",
    "top_similar_external_ids": "external_id",
}
RANGES = {"create_time": "create_time_us", "end_time": "end_time_us", "age": "age"}


def meets(message: ObjectMessage, descriptor: Descriptor, name: str, wanted: Any) -> bool:
    """Whether an object meets one filter of its type. Times in `wanted` are absolute."""
    metadata = message.metadata
    if name in ANY_OF:
        return _compare(getattr(metadata, ANY_OF[name]), wanted, _is_any)
    if name in ANY_ITEM:
        return _compare(getattr(metadata, ANY_ITEM[name]) or None, wanted, _has_any)
    if name in OF_TOP_MATCH:
        return _compare(getattr(metadata.top_match, OF_TOP_MATCH[name], None), wanted, _is_any)
    if name == "attribute_ids":
        return _compare(descriptor.attribute_id, wanted, _is_any)
    if name == f"{message.object_type}_ids":
        return message.object_id in wanted if wanted is not None else False
    if name == "face_ids":
        return _compare(metadata.face_id, wanted, _is_any)
    if name == "geo_position":
        return _compare(None if metadata.longitude is None else metadata, wanted, _is_inside)
    if name == "meta":
        return metadata.meta is None if wanted is None else has_meta(metadata.meta, wanted)
    return _in_range(message, descriptor, name, wanted)


def _in_range(message: ObjectMessage, descriptor: Descriptor, name: str, wanted: Any) -> bool:
    stem, _, bound = name.rpartition("__")
    if stem == "quality":
        value: Any = descriptor.quality
    elif stem == "top_similar_object_similarity":
        value = getattr(message.metadata.top_match, "similarity", None)
    elif stem == f"{message.object_type}_id":
        value = message.object_id
    else:
        value = getattr(message.metadata, RANGES[stem])
    if stem.endswith("_time") and wanted is not None:
        wanted = parse_time(wanted)
    return _compare(value, wanted, {"gte": lambda a, b: a >= b, "lt": lambda a, b: a < b}[bound])


def _compare(value: Any, wanted: Any, how: Callable[[Any, Any], bool]) -> bool:
    if wanted is None:
        return value is None
    return value is not None and how(value, wanted)


def _is_any(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else value == wanted


def _has_any(values: Any, wanted: Any) -> bool:
    listed = wanted if isinstance(wanted, list) else [wanted]
    return any(equal(value, one) for value in values for one in listed)


def _is_inside(place: Any, box: Any) -> bool:
    west = -180 if box.longitude__gte == 180 else box.longitude__gte
    width = (box.longitude__lt - west) + (360 if box.longitude__lt < west else 0)
    return (place.longitude - west) % 360 < width and box.latitude__gte <= place.latitude < box.latitude__lt


def has_meta(meta: Any, wanted: Mapping[str, Any]) -> bool:
    """Whether all paths of the filter hold. Names are joined by dots; backslash and dot is a dot."""
    for path, values in wanted.items():
        found = meta
        for part in path.replace("\\.", "\0").split("."):
            name = part.replace("\0", ".")
            found = found.get(name, _MISSING) if isinstance(found, dict) else _MISSING
        if isinstance(values, dict):
            if not has_meta(found, values):
                return False
        elif not _has_value(found, values if isinstance(values, list) else [values]):
            return False
    return True


def _has_value(found: Any, wanted: list[Any]) -> bool:
    if found is _MISSING or found is None:
        return None in wanted
    items = found if isinstance(found, list) else [found]
    return any(equal(item, one) for item in items for one in wanted if one is not None)


def equal(a: Any, b: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are one number, true is none."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    return isinstance(a, str) and isinstance(b, str) and a == b
