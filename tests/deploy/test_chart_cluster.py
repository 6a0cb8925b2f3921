"""What renders well and a cluster takes amiss: refused by its API, or taken for something else, or without effect."""

from __future__ import annotations

import pytest

from tests.deploy.rendering import Document, documents, named, of_kind, pod_templates


@pytest.mark.parametrize(
    ("sets", "available"),
    [
        ((), 3),  # of 2 + 2
        (("podDisruptionBudget.maxUnavailable=3",), 1),
        (("podDisruptionBudget.maxUnavailable=9",), 0),
        (("workerGroups.arm64.enabled=false",), 1),
        (("ray.autoscaling.enabled=true", "networkPolicy.apiServerCidrs={192.0.2.1/32}"), 1),  # of 1 + 1
    ],
)
def test_workers_can_be_drained(sets: tuple[str, ...], available: int) -> None:
    """`maxUnavailable` takes a controller with a scale, which a RayCluster is not: with it every eviction is refused."""
    budget = named(documents("minimal", *sets), "PodDisruptionBudget", "-workers")["spec"]
    assert budget["minAvailable"] == available and "maxUnavailable" not in budget


def _cluster(*sets: str) -> Document:
    (cluster,) = of_kind(documents("minimal", *sets), "RayCluster")
    return cluster


def test_an_upgrade_replaces_head_and_workers() -> None:
    """They have to be of the coordinator's version, and KubeRay leaves pods as they were unless it is told otherwise."""
    assert _cluster()["spec"]["upgradeStrategy"] == {"type": "Recreate"}


def test_only_the_workers_settings_replace_the_workers() -> None:
    """KubeRay replaces all pods on any change of the RayCluster but in its counts: not for what the coordinator alone reads."""
    assert _cluster("access.recheckSeconds=7", "signer.builderId=urn:other") == _cluster()
    (before, after) = (pod_templates([_cluster(*sets)])["worker-amd64"] for sets in ((), ("sources.fetchTimeoutSeconds=60",)))
    assert before["metadata"]["annotations"] != after["metadata"]["annotations"]
