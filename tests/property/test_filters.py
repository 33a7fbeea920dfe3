"""Selection filters against a plain-Python model over the messages, through the wire and the database."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.messages import (
    Descriptor,
    Filters,
    GeoBox,
    Metadata,
    ObjectMessage,
    TopMatch,
    format_time,
    parse_filters,
)
from stream_cluster.messages.filters import filters_of
from stream_cluster.model import Interrupt
from stream_cluster.snapshot.filters import DEFINITIONS, compile_filters
from stream_cluster.snapshot.selection import select
from tests.support.filter_model import ANY_ITEM, ANY_OF, OF_TOP_MATCH, has_meta, meets
from tests.support.partitions import NOW_US, T0_US, directory, open_partition, records

# Few values of each kind, so that objects and filters often have the same.
HOSTILE = ["", "a", "A", "%", "_", "1", "é", "'; DROP TABLE objects; --", '"', "\\", "null", " a", "a\n"]
texts = st.sampled_from(HOSTILE)
short_texts = texts.filter(lambda text: len(text.encode()) <= 36)
ids = st.sampled_from(["a", "b", "B", "é", "10", "9", "' OR 1=1 --", "$.x"])
numbers = st.integers(0, 4)
times_us = st.integers(0, 6).map(lambda step: T0_US + step * 1000)
shares = st.sampled_from([0.0, 0.1, 0.30000000000000004, 0.8100000023841858, 1.0])
attributes = st.sampled_from(["hat", "1", 1, 2])
longitudes = st.sampled_from([-180.0, -179.0, -10.0, 0.0, 10.0, 179.0, 180.0])
latitudes = st.sampled_from([-90.0, -1.0, 0.0, 1.0, 90.0])
scalars = st.sampled_from([0, 1, 2, 1.0, 1.5, True, False, None, "1", "x", "", "true", "null"])
NAMES = ["a", "b", "a.b", "", "é", "0", "$"]
metas = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, '"', "\\"]), inner, max_size=4)
    ),
    max_leaves=8,
)


def maybe(strategy):
    return st.none() | strategy


def listed(strategy, **sizes):
    return st.lists(strategy, max_size=3, **sizes)


def escaped(name):
    return name.replace(".", r"\.")


paths = st.lists(st.sampled_from(NAMES).map(escaped), min_size=1, max_size=3).map(".".join)
meta_filters = st.dictionaries(
    paths,
    scalars | listed(scalars) | st.dictionaries(paths, scalars | listed(scalars), min_size=1, max_size=2),
    min_size=1,
    max_size=2,
)
boxes = (
    st.builds(
        GeoBox,
        longitude__gte=longitudes,
        longitude__lt=longitudes,
        latitude__gte=latitudes,
        latitude__lt=latitudes,
    )
    .filter(lambda box: box.latitude__gte < box.latitude__lt)
    .filter(lambda box: box.longitude__gte != box.longitude__lt)
)

places = st.fixed_dictionaries({name: maybe(texts) for name in ("city", "area", "district", "street")})
positions = maybe(st.tuples(longitudes, latitudes))


@st.composite
def metadata(draw, object_type):
    """Any metadata that an object of this type may have."""
    position = draw(positions)
    fields = {
        "create_time_us": draw(maybe(times_us)),
        "external_id": draw(maybe(short_texts)),
        "user_data": draw(maybe(texts)),
    }
    if object_type == "face":
        return Metadata(**fields, list_ids=draw(maybe(listed(ids).map(tuple))))
    return Metadata(
        **fields,
        **draw(places),
        **{name: draw(maybe(ids)) for name in ("track_id", "handler_id", "stream_id", "face_id")},
        end_time_us=draw(maybe(times_us)),
        source=draw(maybe(texts)),
        house_number=draw(maybe(texts)),
        tags=draw(maybe(listed(texts).map(tuple))),
        meta=draw(maybe(metas)),
        gender=draw(maybe(st.integers(0, 1))),
        age=draw(maybe(numbers)),
        emotion=draw(maybe(st.integers(1, 3))),
        ethnic_group=draw(maybe(st.integers(1, 3))),
        mask=draw(maybe(st.integers(1, 3))),
        liveness=draw(maybe(st.integers(0, 2))),
        longitude=None if position is None else position[0],
        latitude=None if position is None else position[1],
        top_match=draw(
            maybe(
                st.builds(
                    TopMatch,
                    object_id=maybe(ids),
                    label=maybe(texts),
                    similarity=maybe(shares),
                    external_id=maybe(short_texts),
                )
            )
        ),
        **{name: draw(maybe(listed(attributes).map(tuple))) for name in ("headwear", "clothing", "backpack")},
    )


@st.composite
def objects(draw, object_type):
    """Objects of two accounts; those of one account have different ids."""
    made = []
    for account in ("acme", "other"):
        for object_id in draw(st.lists(st.integers(0, 30), unique=True, max_size=8)):
            descriptor = Descriptor(
                "face",
                1,
                np.array([1, 2], np.int8),
                attribute_id=draw(maybe(ids)),
                quality=draw(maybe(shares)),
            )
            made.append(
                ObjectMessage(
                    account_id=account,
                    object_type=object_type,
                    action="upsert",
                    object_ids=(f"o{object_id}",),
                    metadata=draw(metadata(object_type)),
                    descriptors=(descriptor,),
                )
            )
    return draw(st.permutations(made))


LIMITS = {
    "gender": st.integers(0, 1),
    "emotions": st.integers(1, 4),
    "ethnic_groups": st.integers(1, 4),
    "masks": st.integers(1, 3),
    "liveness": st.integers(0, 2),
    "external_ids": short_texts,
    "top_similar_external_ids": short_texts,
    "list_id": ids,
    "headwear": attributes,
    "clothing": attributes,
    "backpack": attributes,
}
OBJECT_IDS = st.integers(0, 30).map(lambda number: f"o{number}")


def values_of(name, object_type):
    """Values that a filter may have."""
    if name == "meta":
        return meta_filters
    if name == "geo_position":
        return boxes
    if name == f"{object_type}_ids":
        return st.lists(OBJECT_IDS, max_size=12)
    if name.startswith(f"{object_type}_id__"):
        return OBJECT_IDS
    if "_time__" in name:
        return times_us.map(format_time)
    if name.startswith(("quality", "top_similar_object_similarity")):
        return shares
    if name.startswith("age__"):
        return numbers
    is_id = (ANY_OF.get(name) or OF_TOP_MATCH.get(name) or "_id").endswith("_id")
    items = LIMITS.get(name, ids if is_id and name not in ANY_ITEM else texts)
    return listed(items)


@st.composite
def filters(draw, object_type):
    """The filters of a task, by name."""
    names = draw(st.lists(st.sampled_from(sorted(filters_of(object_type))), unique=True, max_size=4))
    return {name: draw(maybe(values_of(name, object_type))) for name in names}


def parsed(given, object_type):
    """The filters as a task message carries them."""
    found = parse_filters(msgspec.json.encode(given), object_type)
    assert isinstance(found, Filters), found
    return found


@st.composite
def cases(draw):
    object_type = draw(st.sampled_from(["event", "face"]))
    return object_type, draw(objects(object_type)), draw(filters(object_type))


@settings(max_examples=300, deadline=None)
@given(case=cases(), read_time_us=st.none() | times_us)
def test_filters_select_what_the_model_selects_and_account_for_the_rest(case, read_time_us):
    object_type, messages, given_filters = case
    conditions = compile_filters(parsed(given_filters, object_type), object_type, NOW_US)
    order = [one.name for one in DEFINITIONS if object_type in one.object_types]
    with directory() as folder:
        partition = open_partition(folder, floor=1.0)
        outcome = partition.apply(records(messages), len(messages))
        assert outcome.accepted == len(messages)
        with partition.view() as view:
            for space in view.spaces():
                selection = select(
                    view,
                    space,
                    conditions,
                    with_tracks=False,
                    interrupt=Interrupt(),
                    read_time_us=read_time_us,
                )
                left = [one for one in messages if one.account_id == space.key.account_id]
                assert selection.in_space == len(left)
                removed = {}
                for name in sorted(given_filters, key=order.index):
                    met = [one for one in left if meets(one, one.descriptors[0], name, given_filters[name])]
                    removed[name] = len(left) - len(met)
                    left = met
                if read_time_us is not None and "create_time__lt" not in given_filters:
                    met = [one for one in left if (one.metadata.create_time_us or 0) < read_time_us]
                    assert selection.dated_after_the_task == len(left) - len(met)
                    if len(met) < len(left):
                        removed["create_time__lt"] = len(left) - len(met)
                    left = met
                assert sorted(selection.ids) == sorted(one.object_id for one in left)
                assert selection.removed_by_filter == removed
                assert sum(removed.values()) == selection.in_space - len(selection)
        partition.close()


def made(number, **fields):
    """An event with these fields of its metadata."""
    return ObjectMessage(
        account_id="acme",
        object_type="event",
        action="upsert",
        object_ids=(f"o{number}",),
        metadata=Metadata(**fields),
        descriptors=(Descriptor("face", 1, np.array([1, 2], np.int8)),),
    )


def selected(view, given):
    """Ids of the events that a filter selects."""
    conditions = compile_filters(parsed(given, "event"), "event", NOW_US)
    (space,) = view.spaces()
    return set(select(view, space, conditions, with_tracks=False, interrupt=Interrupt()).ids)


@settings(max_examples=60, deadline=None)
@given(
    metas=st.lists(maybe(metas), min_size=1, max_size=30),
    wanted=st.lists(meta_filters, min_size=1, max_size=20),
)
def test_paths_and_values_of_meta_select_what_the_model_selects(metas, wanted):
    messages = [made(number, meta=meta) for number, meta in enumerate(metas)]
    with directory() as folder:
        partition = open_partition(folder, floor=1.0)
        partition.apply(records(messages))
        with partition.view() as view:
            for meta in wanted:
                expected = {one.object_id for one in messages if has_meta(one.metadata.meta, meta)}
                assert selected(view, {"meta": meta}) == expected, meta
        partition.close()


SCALARS = [0, 1, 1.0, 1.5, True, False, None, "1", "true", "null", "", 'a"', "]"]
SHAPES = [
    lambda value: value,
    lambda value: {"a": value},
    lambda value: {"a": [value, "other"]},
    lambda value: {"a": [[value]]},
    lambda value: {"a": {"b": value}},
    lambda value: {"a": [{"b": value}]},
    lambda value: {"a.b": value},
    lambda value: {"b": {"a": value}, "a": {}},
]


def test_every_value_in_every_shape_of_meta_is_told_from_every_other():
    """All pairs of a few values in a few shapes: no chance in it."""
    messages = [
        made(number, meta=shape(value))
        for number, (shape, value) in enumerate(itertools.product(SHAPES, SCALARS))
    ]
    with directory() as folder:
        partition = open_partition(folder, floor=1.0)
        partition.apply(records([*messages, made(999)]))
        with partition.view() as view:
            for path, value in itertools.product(["a", "a.b", r"a\.b", "b.a", "0"], SCALARS):
                for wanted in (value, [value, "absent"], []):
                    expected = {
                        one.object_id for one in messages if has_meta(one.metadata.meta, {path: wanted})
                    } | ({"o999"} if has_meta(None, {path: wanted}) else set())
                    assert selected(view, {"meta": {path: wanted}}) == expected, (path, wanted)
            assert selected(view, {"meta": {"a": {"b": 1}}}) == selected(view, {"meta": {"a.b": 1}}) != set()
        partition.close()


def test_every_box_selects_what_the_model_selects_also_across_the_180th_meridian():
    """All boxes and all positions of a few degrees: no chance in it."""
    eastings, northings = [-180, -179, -1, 0, 179, 180], [-90, 0, 90]
    messages = [
        made(number, longitude=float(longitude), latitude=float(latitude))
        for number, (longitude, latitude) in enumerate(itertools.product(eastings, northings))
    ]
    with directory() as folder:
        partition = open_partition(folder, floor=1.0)
        partition.apply(records([*messages, made(99)]))
        with partition.view() as view:
            for west, east in itertools.permutations(eastings, 2):
                for south, north in itertools.combinations(northings, 2):
                    box = GeoBox(
                        longitude__gte=west, longitude__lt=east, latitude__gte=south, latitude__lt=north
                    )
                    expected = {
                        one.object_id
                        for one in messages
                        if meets(one, one.descriptors[0], "geo_position", box)
                    }
                    assert selected(view, {"geo_position": box}) == expected, box
        partition.close()


@settings(max_examples=30, deadline=None)
@given(case=cases(), data=st.data())
def test_each_filter_alone_selects_what_the_model_selects(case, data):
    object_type, messages, _ = case
    with directory() as folder:
        partition = open_partition(folder, floor=1.0)
        partition.apply(records(messages), len(messages))
        with partition.view() as view:
            for name in sorted(filters_of(object_type)):
                wanted = data.draw(maybe(values_of(name, object_type)), label=name)
                conditions = compile_filters(parsed({name: wanted}, object_type), object_type, NOW_US)
                for space in view.spaces():
                    selection = select(view, space, conditions, with_tracks=False, interrupt=Interrupt())
                    assert sorted(selection.ids) == sorted(
                        one.object_id
                        for one in messages
                        if one.account_id == space.key.account_id
                        and meets(one, one.descriptors[0], name, wanted)
                    )
        partition.close()
