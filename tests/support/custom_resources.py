"""Schemas of the custom resources that the chart makes, as far as it uses them; anything else is refused.

Sources: the API references of Prometheus Operator (monitoring.coreos.com/v1), KEDA (keda.sh/v1alpha1) and
Strimzi (kafka.strimzi.io/v1beta2).
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}


def _closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
    }


def _resource(api_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _closed({"name": _TEXT, "namespace": _TEXT, "labels": _TEXTS}, {"annotations": _TEXTS})
    return _closed(
        {"apiVersion": {"const": api_version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    )


def _all(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_SELECTOR = _closed({"matchLabels": _TEXTS})
_ENDPOINT = _closed({"port": _TEXT, "path": _TEXT, "interval": _DURATION})
_RULE = _closed(
    {"alert": _TEXT, "expr": _TEXT, "labels": _TEXTS, "annotations": _TEXTS},
    {"for": _DURATION, "keep_firing_for": _DURATION},
)
_POLICY = _closed({"type": {"enum": ["Pods", "Percent"]}, "value": _COUNT, "periodSeconds": _COUNT})
_SCALING = _closed({"stabilizationWindowSeconds": _COUNT, "policies": _all(_POLICY)})
_SCALED_OBJECT = _closed(
    {
        "scaleTargetRef": _closed({"apiVersion": _TEXT, "kind": _TEXT, "name": _TEXT}),
        "minReplicaCount": _COUNT,
        "maxReplicaCount": _COUNT,
        "cooldownPeriod": _COUNT,
        "advanced": _closed(
            {
                "horizontalPodAutoscalerConfig": _closed(
                    {"behavior": _closed({"scaleUp": _SCALING, "scaleDown": _SCALING})}
                )
            }
        ),
        "triggers": _all(
            # KEDA takes the values of a trigger as texts only.
            _closed(
                {"type": {"const": "kafka"}, "metadata": _TEXTS},
                {"authenticationRef": _closed({"name": _TEXT})},
            )
        ),
    }
)
_TOPIC = _closed(
    {
        "topicName": _TEXT,
        "partitions": {"type": "integer", "minimum": 1},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 32767},
        "config": {
            "type": "object",
            "additionalProperties": {"type": ["string", "integer", "number", "boolean"]},
        },
    }
)

_SPECS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): _closed(
        {"selector": _SELECTOR, "podMetricsEndpoints": _all(_ENDPOINT)}
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _closed(
        {"selector": _SELECTOR, "endpoints": _all(_ENDPOINT)}
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _closed(
        {"groups": _all(_closed({"name": _TEXT, "rules": _all(_RULE)}))}
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): _SCALED_OBJECT,
    ("kafka.strimzi.io/v1beta2", "KafkaTopic"): _TOPIC,
}

CUSTOM_RESOURCES = {key: _resource(*key, spec) for key, spec in _SPECS.items()}
"""(apiVersion, kind) → schema."""
