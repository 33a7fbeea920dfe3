"""The published schemas: whole, of the right shape, and in step with what is decoded."""

from __future__ import annotations

import json

import pytest

from stream_cluster.config.settings import KafkaSettings
from stream_cluster.messages import Filters, Reason, TaskStatus
from stream_cluster.messages.schema import asyncapi, json_schemas, references
from stream_cluster.messages.updates import ChangeUpdate, ObjectUpdate, ResetUpdate
from stream_cluster.messages.wire import WireObject

KAFKA = KafkaSettings(events_topic="my-events")


def resolve(document: dict, reference: str):
    assert reference.startswith("#/")
    node = document
    for part in reference[2:].split("/"):
        node = node[part]
    return node


@pytest.mark.parametrize("document", [*json_schemas().values(), asyncapi(KAFKA)])
def test_every_reference_resolves_inside_its_document(document):
    found = references(document)
    assert found
    for reference in found:
        assert isinstance(resolve(document, reference), dict)


def test_every_document_is_plain_json():
    for document in (json_schemas(), asyncapi(KAFKA)):
        assert json.loads(json.dumps(document)) == document


def test_the_schemas_carry_public_names_only():
    assert set(json_schemas()) == {"object", "task", "task_status", "cluster_update"}
    assert "Wire" not in json.dumps(json_schemas()) + json.dumps(asyncapi(KAFKA))


def test_every_decoded_field_is_in_its_schema():
    schemas = json_schemas()
    properties = schemas["object"]["$defs"]["Object"]["properties"]
    assert set(properties) == set(WireObject.__struct_fields__)
    assert set(schemas["task"]["$defs"]["Filters"]["properties"]) == set(Filters.__struct_fields__)
    assert set(schemas["task_status"]["$defs"]["TaskStatus"]["properties"]) == set(
        TaskStatus.__struct_fields__
    )
    for update in (ObjectUpdate, ChangeUpdate, ResetUpdate):
        properties = schemas["cluster_update"]["$defs"][update.__name__]["properties"]
        assert set(properties) == {*update.__struct_fields__, "kind"}


def test_required_fields_are_those_of_the_contract():
    schemas = json_schemas()
    assert schemas["object"]["$defs"]["Object"]["required"] == ["account_id"]
    assert schemas["task"]["$defs"]["TaskRequest"]["required"] == ["task_id", "account_id", "content"]
    assert schemas["task"]["$defs"]["Content"]["required"] == ["objects_type"]
    assert schemas["task"]["$defs"]["CancelRequest"]["required"] == ["type", "task_id", "account_id"]


def test_limits_of_fields_are_in_the_schema():
    properties = json_schemas()["object"]["$defs"]["Object"]["properties"]
    assert properties["external_id"]["anyOf"][0]["maxLength"] == 36
    assert properties["account_id"]["maxLength"] == 128
    assert properties["gender"]["description"] == "0 female, 1 male."
    encoding = json_schemas()["object"]["$defs"]["Descriptor"]["properties"]["encoding"]
    assert encoding["enum"] == ["float32", "float16", "int8", "uint8", "sdk"]
    assert json_schemas()["task"]["$defs"]["Filters"]["additionalProperties"] is False


def test_the_schema_says_which_name_each_number_stands_for():
    properties = json_schemas()["object"]["$defs"]["Object"]["properties"]
    names = {
        "gender": "0 female, 1 male.",
        "emotion": "1 anger, 2 disgust, 3 fear, 4 happiness, 5 neutral, 6 sadness, 7 surprise.",
        "ethnic_group": "1 african_american, 2 indian, 3 asian, 4 caucasian.",
        "mask": "1 missing, 2 medical_mask, 3 occluded.",
        "liveness": "0 spoof, 1 real, 2 unknown.",
    }
    assert {name: properties[name]["description"] for name in names} == names


def test_the_asyncapi_document_has_the_shape_of_version_3():
    document = asyncapi(KAFKA)
    assert set(document) == {"asyncapi", "info", "defaultContentType", "channels", "operations", "components"}
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(document["info"])
    assert document["channels"]["objects"]["address"] == "my-events"
    assert {channel["address"] for channel in document["channels"].values()} == {
        KAFKA.events_topic,
        KAFKA.tasks_topic,
        KAFKA.results_topic,
        KAFKA.dead_letter_topic,
        KAFKA.updates_topic,
    }
    for operation in document["operations"].values():
        assert operation["action"] in {"send", "receive"}
        channel = resolve(document, operation["channel"]["$ref"])
        for message in operation["messages"]:
            assert resolve(document, message["$ref"]) in channel["messages"].values()
    for message in document["components"]["messages"].values():
        assert set(message) == {"summary", "headers", "payload", "bindings"}


def test_the_asyncapi_document_lists_every_reason_of_rejection():
    headers = asyncapi(KAFKA)["components"]["messages"]["rejected"]["headers"]
    assert headers["properties"]["reason"]["enum"] == list(Reason)
    assert headers["required"] == ["reason", "detail", "source-topic", "source-partition", "source-offset"]
