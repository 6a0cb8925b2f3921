"""What renders well and a cluster takes amiss: refused by its API, or taken for something else, or without effect."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import custom_resources
from tests.deploy.rendering import CHART, EXAMPLES, Document, containers, documents, named, of_kind, pod_templates, render

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


@pytest.mark.parametrize(
    ("setting", "replaced"),
    [
        ("sources.fetchTimeoutSeconds=60", True),
        ("ray.health.failures=5", True),
        ("image.worker.tag=next", True),
        ("workerGroups.amd64.replicas=4", False),
        ("workerGroups.amd64.maxReplicas=9", False),
    ],
)
def test_the_coordinator_is_replaced_when_the_head_is(setting: str, replaced: bool) -> None:
    """Its Ray node and its driver belong to the head that they joined; a farm that only grows goes on."""
    before, after = (pod_templates(documents("minimal", *sets))["coordinator"] for sets in ((), (setting,)))
    assert (before != after) is replaced


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


# --- names that YAML takes for something else

AWKWARD = ("on", "true", "null", "1e3", "123")


def _names(schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Values that name an object of Kubernetes, by the schema."""
    whole = json.loads((CHART / "values.schema.json").read_text())
    reference = schema.get("$ref", "").rsplit("/", 1)[-1]
    if reference in ("name", "optionalName"):
        yield where
    elif reference:
        yield from _names(whole["$defs"][reference], where)
    for name, below in schema.get("properties", {}).items():
        yield from _names(below, f"{where}.{name}".lstrip("."))
    if isinstance(schema.get("additionalProperties"), dict) and where == "workerGroups":
        yield from _names(schema["additionalProperties"], f"{where}.amd64")
    if "items" in schema:
        yield from _names(schema["items"], f"{where}[0]")


def _checked(text: str, word: str) -> list[Document]:
    """The documents, valid for Kubernetes. Raises AssertionError where the word stands bare: 1e3 is a number to helm, not to us."""
    bare = re.compile(rf"(?:[:,\[] |- ){re.escape(word)} *(?:$|[,}}\]])")
    assert word == "true" or not [line for line in text.splitlines() if bare.search(line)]
    found = [each for each in yaml.safe_load_all(text) if each is not None]
    for document in found:
        custom_resources.validate(document, "1.34")
    return found


@pytest.mark.parametrize("word", AWKWARD)
def test_release_and_groups_have_any_name(word: str) -> None:
    group = {**yaml.safe_load((CHART / "values.yaml").read_text())["workerGroups"]["amd64"], "minReplicas": 0}
    sets = [f"workerGroups={json.dumps({word: group})}", 'fullnameOverride="on"']
    found = _checked(render("minimal", *[each for one in sets for each in ("--set-json", one)], release=word), word)
    (cluster,) = of_kind(found, "RayCluster")
    assert cluster["metadata"]["labels"]["app.kubernetes.io/instance"] == word and cluster["metadata"]["name"] == "on"
    assert word in {each["groupName"] for each in cluster["spec"]["workerGroupSpecs"]}
    settings = yaml.safe_load(named(found, "ConfigMap", "-workers")["data"][f"worker-{word}.yaml"])
    assert settings["name"] == word


@pytest.mark.parametrize("word", ["on", "1e3", "123"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_secrets_claims_and_classes_have_any_name(example: str, word: str) -> None:
    paths = list(_names(json.loads((CHART / "values.schema.json").read_text())))
    assert {"image.pullSecrets[0]", "access.tls.secret", "workerGroups.amd64.scratch.storageClass"} <= set(paths)
    for without in ("existingClaim", "storageClass"):  # one of both is used
        chosen = [path for path in paths if not path.endswith(without)]
        if example != "full":  # there an identity provider is set, whose keys it holds
            chosen.remove("access.oidc.jwksConfigMap")
        _checked(render(example, *[each for path in chosen for each in ("--set-json", f"{path}={json.dumps(word)}")]), word)


@pytest.mark.parametrize("release", ["9farm", "farm.v1"])
def test_with_a_name_for_its_objects_a_release_has_any(release: str) -> None:
    """Without one it is refused (test_values.py): Kubernetes would refuse the Service, when volumes have been made already."""
    assert _checked(render("minimal", "--set", "fullnameOverride=farm", release=release), release)


def test_a_version_may_have_build_metadata(tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "kernfarm")
    about = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(re.sub("(?m)^((?:appV|v)ersion): .*", r"\1: 0.1.0+build.7", about))
    for document in yaml.safe_load_all(render("minimal", chart=chart)):
        labels = document["metadata"]["labels"]
        assert all(re.fullmatch("[A-Za-z0-9._-]{1,63}", value) for value in labels.values()), labels


# --- probes


def _probes(*sets: str) -> list[Document]:
    coordinator = containers(pod_templates(documents("minimal", *sets))["coordinator"])["coordinator"]
    return [coordinator[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe")]


def test_probes_are_of_one_kind_with_and_without_mtls() -> None:
    """An upgrade that goes from one kind to another and fails can leave both, and then none goes through."""
    for probe in (*_probes(), *_probes("access.tls.clientCaSecret=clients")):
        assert set(probe) & {"exec", "tcpSocket", "grpc", "httpGet"} == {"exec"}


def test_with_mtls_the_probe_asks_whether_the_port_answers() -> None:
    """A whole call would take a client's certificate."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (command,) = {tuple(probe["exec"]["command"]) for probe in _probes("access.tls.clientCaSecret=clients", f"coordinator.port={port}")}
        words = [sys.executable, *command[1:]]
        assert command[0] == "python" and subprocess.run(words, check=False, timeout=30).returncode == 0
    assert subprocess.run(words, check=False, timeout=30, stderr=subprocess.DEVNULL).returncode != 0
