"""What renders well and a cluster takes amiss: refused by its API, or taken for something else, or without effect."""

from __future__ import annotations

import pytest

from tests.deploy.rendering import Document, documents, named, of_kind, pod_templates


AUTOSCALING = ("ray.autoscaling.enabled=true", "networkPolicy.apiServerCidrs={192.0.2.1/32}")


@pytest.mark.parametrize(
    ("sets", "available"),
    [
        ((), 3),  # of 2 + 2
        (("podDisruptionBudget.maxUnavailable=3",), 1),
        (("podDisruptionBudget.maxUnavailable=9",), 0),
        (("workerGroups.arm64.enabled=false",), 1),
        (AUTOSCALING, 1),  # of 1 + 1
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


def test_the_autoscaler_alone_may_speak_to_kubernetes() -> None:
    """KubeRay gives the head's account a role. An account of the chart's for all would hand that to workers, and its name is KubeRay's
    default: without one of the head's own KubeRay takes it."""
    found = documents("minimal", *AUTOSCALING)
    templates = pod_templates(found)
    accounts = {name: template["spec"].get("serviceAccountName") for name, template in templates.items()}
    head = accounts.pop("head")
    assert head and head not in accounts.values()
    assert head in {each["metadata"]["name"] for each in of_kind(found, "ServiceAccount")}
    (cluster,) = of_kind(found, "RayCluster")
    mounts = {each["mountPath"]: each["name"] for each in cluster["spec"]["autoscalerOptions"]["volumeMounts"]}
    volumes = {each["name"]: each for each in templates["head"]["spec"]["volumes"]}
    # Where Ray's autoscaler looks for them; KubeRay's container has a read-only root, as all have.
    sources = volumes[mounts["/var/run/secrets/kubernetes.io/serviceaccount"]]["projected"]["sources"]
    assert sources[0]["serviceAccountToken"]["path"] == "token" and sources[1]["configMap"]["items"][0]["path"] == "ca.crt"
    assert "emptyDir" in volumes[mounts["/tmp"]]


def test_without_the_autoscaler_nobody_may_speak_to_kubernetes() -> None:
    found = documents("minimal")
    (account,) = of_kind(found, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert pod_templates(found)["head"]["spec"]["serviceAccountName"] == account["metadata"]["name"]
