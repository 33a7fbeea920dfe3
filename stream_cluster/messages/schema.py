"""The public contract as JSON Schema and as an AsyncAPI 3 document, made from the structs that decode it."""

from __future__ import annotations

from typing import Any

import msgspec

from stream_cluster import __version__
from stream_cluster.config.settings import KafkaSettings
from stream_cluster.messages.record import JSON, MSGPACK, Reason
from stream_cluster.messages.status import TaskStatus
from stream_cluster.messages.tasks import AnyTask, TaskRequest
from stream_cluster.messages.updates import ClusterUpdate
from stream_cluster.messages.wire import WireObject

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DEFS = "#/$defs/"
_COMPONENTS = "#/components/schemas/"


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each message by name. Each stands on its own."""
    tops, definitions = _schemas(_DEFS)
    return {
        name: {"$schema": DIALECT, **top, "$defs": _reachable(top, definitions)} for name, top in tops.items()
    }


def asyncapi(kafka: KafkaSettings) -> dict[str, Any]:
    """The AsyncAPI 3.0.0 document for the topics of these settings, seen from the service."""
    tops, components = _schemas(_COMPONENTS)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "stream-cluster",
            "version": __version__,
            "description": "Groups faces and bodies by similarity. Every topic is keyed by account_id.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "channels": {
            "objects": _channel(kafka.events_topic, "Objects with descriptors.", "object"),
            "tasks": _channel(kafka.tasks_topic, "Requests to cluster, cancel or delete.", "task"),
            "statuses": _channel(kafka.results_topic, "What became of each task.", "task_status"),
            "updates": _channel(
                kafka.updates_topic, "What objects do to clusters, if enabled.", "cluster_update"
            ),
            "rejected": _channel(kafka.dead_letter_topic, "Records that cannot be used.", "rejected"),
        },
        "operations": {
            "receiveObjects": _operation("receive", "objects", "object"),
            "receiveTasks": _operation("receive", "tasks", "task"),
            "sendStatuses": _operation("send", "statuses", "task_status"),
            "sendUpdates": _operation("send", "updates", "cluster_update"),
            "sendRejected": _operation("send", "rejected", "rejected"),
        },
        "components": {
            "messages": {
                "object": _message("An object: upsert, update or delete.", tops["object"], _content_type()),
                "task": _message("A task request.", tops["task"], _content_type()),
                "task_status": _message("The status of a task.", tops["task_status"], _content_type()),
                "cluster_update": _message(
                    "A cluster update; no two have the same epoch and seq in one partition.",
                    tops["cluster_update"],
                    _content_type(),
                ),
                "rejected": _message("A rejected record, byte for byte.", {}, _rejection_headers()),
            },
            "schemas": components,
        },
    }


def _schemas(prefix: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Top-level schemas by message, and the definitions they refer to under `prefix`."""
    (wire_object, task, status, update), definitions = msgspec.json.schema_components(
        (WireObject, AnyTask, TaskStatus, ClusterUpdate), ref_template=prefix + "{name}"
    )
    # Decoding takes a task without a type as a clustering; msgspec's schema cannot say so.
    definitions[TaskRequest.__name__]["required"].remove("type")
    tops = {"object": wire_object, "task": task, "task_status": status, "cluster_update": update}
    return _renamed(tops, prefix), {
        _public(name): _renamed(schema, prefix) for name, schema in definitions.items()
    }


def _public(name: str) -> str:
    return name.removeprefix("Wire")


def _renamed(node: Any, prefix: str) -> Any:
    """The schema with public names in titles and references, less `discriminator`, which is OpenAPI's."""
    if isinstance(node, list):
        return [_renamed(item, prefix) for item in node]
    if not isinstance(node, dict):
        return node
    renamed = {key: _renamed(value, prefix) for key, value in node.items() if key != "discriminator"}
    if isinstance(renamed.get("title"), str):
        renamed["title"] = _public(renamed["title"])
    if isinstance(renamed.get("$ref"), str):
        renamed["$ref"] = prefix + _public(renamed["$ref"].removeprefix(prefix))
    return renamed


def _reachable(top: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The definitions that `top` refers to, directly or not, sorted by name."""
    found: set[str] = set()
    waiting = [top]
    while waiting:
        for name in references(waiting.pop()):
            key = name.removeprefix(_DEFS)
            if key not in found:
                found.add(key)
                waiting.append(definitions[key])
    return {name: definitions[name] for name in sorted(found)}


def references(node: Any) -> list[str]:
    """Every `$ref` in a document, in order."""
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for value in node.values() for found in references(value)]


def _channel(topic: str, description: str, message: str) -> dict[str, Any]:
    return {
        "address": topic,
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {"kafka": {"topic": topic, "bindingVersion": "0.5.0"}},
    }


def _operation(action: str, channel: str, message: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
    }


def _message(summary: str, payload: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "headers": headers,
        "payload": payload,
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": "The account_id, UTF-8."},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _content_type() -> dict[str, Any]:
    description = "Form of the value; when absent, its first byte decides."
    return _headers({"content-type": {"type": "string", "enum": [JSON, MSGPACK], "description": description}})


def _rejection_headers() -> dict[str, Any]:
    names = ("detail", "source-topic", "source-partition", "source-offset")
    properties = {name: {"type": "string"} for name in names}
    return _headers(
        {"reason": {"type": "string", "enum": [reason.value for reason in Reason]}, **properties}
    ) | {"required": ["reason", *names]}


def _headers(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}
