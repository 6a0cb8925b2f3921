"""Schemas of the custom resources that the chart makes: subsets, written by hand after their API references, of every field that the
chart may use, and no other. They are not the projects' own definitions: Ray's package has none, and no registry that we use does either.
RayCluster (KubeRay's ray.io/v1) was held against ray-operator/apis/ray/v1/raycluster_types.go: names, types, required fields and the
enumerations; the others are Prometheus operator's monitoring.coreos.com/v1. Pod templates in them are checked as pods, strictly, by the
schemas of Kubernetes."""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate

from tests.deploy.rendering import Document, pod_templates

_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}
_POD = {"type": "object", "required": ["spec"]}
_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def _resource(api: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _object({"name": {"type": "string"}, "labels": _STRINGS, "annotations": _STRINGS}, "name")
    properties = {"apiVersion": {"const": api}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    return _object(properties, "apiVersion", "kind", "metadata", "spec")


_SELECTOR = _object({"matchLabels": _STRINGS}, "matchLabels")
_AUTOSCALER = _object(
    {
        "idleTimeoutSeconds": _COUNT,
        "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
        "image": {"type": "string"},
        "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        "env": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        "volumeMounts": {"type": "array", "items": {"type": "object", "required": ["name", "mountPath"]}},
        "securityContext": {"type": "object"},
        "resources": {"type": "object"},
    }
)
_HEAD = _object(
    {"serviceType": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, "rayStartParams": _STRINGS, "template": _POD},
    "rayStartParams",
    "template",
)
_GROUP = _object(
    {
        "groupName": {"type": "string"},
        "replicas": _COUNT,
        "minReplicas": _COUNT,
        "maxReplicas": _COUNT,
        "rayStartParams": _STRINGS,
        "template": _POD,
    },
    "groupName",
    "maxReplicas",
    "minReplicas",
    "rayStartParams",
    "template",
)
_RELABELING = _object(
    {"action": {"enum": ["replace"]}, "targetLabel": {"type": "string"}, "replacement": {"type": "string"}}, "targetLabel"
)
_ENDPOINT = _object(
    {"relabelings": {"type": "array", "items": _RELABELING}, "port": {"type": "string"}, "interval": _DURATION, "path": {"type": "string"}}
)
_RULE = _object(
    {"record": {"type": "string"}, "alert": {"type": "string"}, "expr": {"type": ["string", "integer"]}, "for": _DURATION}
    | {"keep_firing_for": _DURATION, "labels": _STRINGS, "annotations": _STRINGS},
    "expr",
)
_RULES = _object({"name": {"type": "string"}, "interval": _DURATION, "rules": {"type": "array", "items": _RULE}}, "name")

SCHEMAS: dict[str, dict[str, Any]] = {
    "RayCluster": _resource(
        "ray.io/v1",
        "RayCluster",
        _object(
            {
                "rayVersion": {"type": "string"},
                "upgradeStrategy": _object({"type": {"enum": ["Recreate", "None"]}}),  # KubeRay 1.6
                "enableInTreeAutoscaling": {"type": "boolean"},
                "autoscalerOptions": _AUTOSCALER,
                "headGroupSpec": _HEAD,
                "workerGroupSpecs": {"type": "array", "items": _GROUP},
            },
            "headGroupSpec",
        ),
    ),
    "ServiceMonitor": _resource(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        _object({"selector": _SELECTOR, "endpoints": {"type": "array", "items": _ENDPOINT}}, "selector", "endpoints"),
    ),
    "PodMonitor": _resource(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _object({"selector": _SELECTOR, "podMetricsEndpoints": {"type": "array", "items": _ENDPOINT}}, "selector", "podMetricsEndpoints"),
    ),
    "PrometheusRule": _resource(
        "monitoring.coreos.com/v1", "PrometheusRule", _object({"groups": {"type": "array", "items": _RULES}}, "groups")
    ),
}


def validate(document: Document, version: str) -> None:
    """Check a document against the schemas of a Kubernetes version ("1.34"), or ours for a custom resource. Raises either's error."""
    schema = SCHEMAS.get(document["kind"])
    if schema is None:
        kubernetes_validate.validate(document, version, strict=True)
        return
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    for name, template in pod_templates([document]).items():
        metadata = {"name": name, **template.get("metadata", {})}
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, version, strict=True
        )
