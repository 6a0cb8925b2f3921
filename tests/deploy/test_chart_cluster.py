"""What renders well and a cluster takes amiss: refused by its API, or taken for something else, or without effect."""

from __future__ import annotations

import pytest

from tests.deploy.rendering import documents, named


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
