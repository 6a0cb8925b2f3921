"""What renders well and a cluster takes amiss: refused by its API, or taken for something else, or without effect."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
import yaml

from tests.deploy.rendering import Document, documents, named, of_kind, pod_templates, render


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


# --- whom workers may call


def _sources(*cidrs: str, exceptions: str = "") -> list[Document]:
    """The peers of the first rule of the workers' egress."""
    sets = [f"networkPolicy.sources.cidrs={{{','.join(cidrs)}}}"]
    if exceptions:
        sets.append(f"networkPolicy.sources.except={{{exceptions}}}")
    policy = named(documents("minimal", *sets), "NetworkPolicy", "-worker")["spec"]
    return [peer["ipBlock"] for rule in policy["egress"] for peer in rule["to"]]


@pytest.mark.parametrize("example", ["minimal", "external-postgres-s3"])
def test_without_addresses_of_sources_workers_are_let_out_to_none(example: str) -> None:
    """A rule of ports without addresses would let them out to everything, the cloud's metadata service included."""
    found = list(yaml.safe_load_all(render(example, "--set-json", "networkPolicy.sources.cidrs=[]")))
    policy = named(found, "NetworkPolicy", "-worker")["spec"]
    assert "Egress" in policy["policyTypes"]
    assert [rule["to"] for rule in policy.get("egress", ())] == [[{"ipBlock": {"cidr": "198.51.100.0/24"}}]] * (example != "minimal")


@pytest.mark.parametrize(
    ("cidr", "left_out"),
    [
        ("0.0.0.0/0", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"]),
        ("::/0", ["fc00::/7", "fe80::/10"]),
        ("0.0.0.0/1", ["10.0.0.0/8", "100.64.0.0/10"]),
        ("203.0.113.0/24", []),
        ("10.0.0.0/8", []),  # named itself: open
        ("10.1.0.0/16", []),
        ("2001:db8::/32", []),
    ],
)
def test_private_ranges_are_left_out_of_what_holds_them(cidr: str, left_out: list[str]) -> None:
    """Kubernetes refuses an exception that is no strict part of its range."""
    (block,) = _sources(cidr)
    assert (block["cidr"], block.get("except", [])) == (cidr, left_out)


def test_an_exception_is_never_lost_from_its_range() -> None:
    ranges = ["198.51.100.0/25", "203.0.113.64/26", "2001:db8:0:f000::/52", "2001:db8::/127", "fd00:1:2:3:4:5:6:0/112"]
    exceptions = ["198.51.100.1/32", "198.51.100.128/32", "203.0.113.127/32", "203.0.113.128/26", "203.0.113.64/26"]
    exceptions += ["2001:db8:0:ffff::/64", "2001:db8:1:f000::/52", "2001:db8::1/128", "fd00:1:2:3:4:5:6:7/128", "::/64"]
    for block in _sources(*ranges, exceptions=",".join(exceptions)):
        inside = ip_network(block["cidr"])
        parts = [each for each in exceptions if (part := ip_network(each)).version == inside.version and part != inside]
        assert block.get("except", []) == [each for each in parts if ip_network(each).subnet_of(inside)], block  # type: ignore[arg-type]
