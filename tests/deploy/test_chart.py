"""The chart's example values, rendered: valid for Kubernetes, and as safe as the design says."""

from __future__ import annotations

import json
import re
import shlex
import tomllib

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy import custom_resources
from tests.deploy.rendering import (
    CHART,
    EXAMPLES,
    ROOT,
    Document,
    containers,
    documents,
    helm,
    named,
    of_kind,
    pod_templates,
    text,
    values_file,
)

VERSIONS = ("1.30", "1.31", "1.33", "1.34", "1.37")
EVERYTHING = pytest.mark.parametrize("example", EXAMPLES)


@EVERYTHING
def test_helm_lint(example: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(values_file(example)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@EVERYTHING
def test_valid_for_kubernetes(example: str, version: str) -> None:
    found = documents(example, version=f"{version}.0")
    assert {"Deployment", "RayCluster", "NetworkPolicy", "Service", "ConfigMap", "Pod"} <= {each["kind"] for each in found}
    for document in found:
        custom_resources.validate(document, version)


def test_validation_sees_a_slip() -> None:
    """The check above could pass for want of looking."""
    cluster = named(documents("minimal"), "RayCluster", "kernfarm")
    cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePolicy"):
        custom_resources.validate(cluster, "1.34")
    del cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePolicy"]
    cluster["spec"]["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        custom_resources.validate(cluster, "1.34")


def test_older_clusters_are_refused() -> None:
    done = helm("template", "farm", str(CHART), "--values", str(values_file("minimal")), "--kube-version", "1.29.0")
    assert done.returncode != 0 and "kubeVersion" in done.stderr


@EVERYTHING
def test_names_fit(example: str) -> None:
    long = "a-release-with-a-name-as-long-as-helm-allows-them-xyz"
    done = helm("template", long, str(CHART), "--values", str(values_file(example)))
    assert done.returncode == 0, done.stderr
    for document in yaml.safe_load_all(done.stdout):
        assert len(document["metadata"]["name"]) <= 63
        if document["kind"] == "RayCluster":
            assert len(document["metadata"]["name"]) <= 40


# --- what a container may do


def _everything(*sets: str) -> list[tuple[str, str, Document, Document]]:
    """Example, POD/CONTAINER, the pod's template, and the container with what it inherits from the pod in its securityContext."""

    def whole(template: Document, container: Document) -> Document:
        return {**container, "securityContext": {**template["spec"].get("securityContext", {}), **container["securityContext"]}}

    return [
        (example, f"{pod}/{name}", template, whole(template, container))
        for example in EXAMPLES
        for pod, template in pod_templates(documents(example, *sets)).items()
        for name, container in containers(template).items()
    ]


def test_every_container_is_confined() -> None:
    for example, name, template, container in _everything("sandbox.mode=userNamespace"):
        where = f"{example}: {name}"
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True, where
        assert security.get("privileged", False) is False, where
        assert security["allowPrivilegeEscalation"] is False, where
        assert security["capabilities"]["drop"] == ["ALL"], where
        assert "SYS_ADMIN" not in security["capabilities"].get("add", []), where
        assert container["resources"]["limits"]["memory"], where
        assert not template["spec"].get("hostNetwork") and not template["spec"].get("hostPID") and not template["spec"].get("hostIPC"), (
            where
        )
        if not name.startswith("worker-"):
            assert security["runAsNonRoot"] is True and security["runAsUser"] > 0, where
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where


def test_root_lives_in_a_user_namespace_only() -> None:
    for example, name, template, container in _everything("sandbox.mode=userNamespace"):
        if container["securityContext"]["runAsUser"] == 0:
            assert template["spec"]["hostUsers"] is False, f"{example}: {name}"


def test_only_the_worker_is_privileged_and_only_when_asked() -> None:
    privileged = {
        name for _, name, _, container in _everything("sandbox.mode=privileged") if container["securityContext"].get("privileged")
    }
    assert privileged and all(re.fullmatch(r"worker-\w+/ray-worker", name) for name in privileged)


def test_nothing_of_the_host_is_mounted() -> None:
    for example in EXAMPLES:
        for name, template in pod_templates(documents(example)).items():
            assert not [volume for volume in template["spec"].get("volumes", ()) if "hostPath" in volume], f"{example}: {name}"


def test_no_kubernetes_credentials_in_pods() -> None:
    for example in EXAMPLES:
        for name, template in pod_templates(documents(example)).items():
            assert template["spec"]["automountServiceAccountToken"] is False, f"{example}: {name}"
            tokens = {volume["name"] for volume in template["spec"]["volumes"] if "serviceAccountToken" in str(volume)}
            mounted = {mount["name"] for each in containers(template).values() for mount in each.get("volumeMounts", ())}
            assert not tokens & mounted, f"{example}: {name}"
            # The autoscaler, which KubeRay adds to the head's pod, asks Kubernetes for pods.
            assert not tokens or (name == "head" and example == "full"), f"{example}: {name}"


def test_the_signing_key_is_in_the_signer_only() -> None:
    template = pod_templates(documents("minimal"))["coordinator"]
    secret = {volume["name"] for volume in template["spec"]["volumes"] if volume.get("secret", {}).get("secretName") == "kernfarm-signer"}
    holders = {
        name
        for name, container in containers(template).items()
        for mount in container["volumeMounts"]
        if mount["name"] in secret | {"signer-key"}
    }
    assert holders == {"signer-key", "signer"}
    users = {name: container["securityContext"]["runAsUser"] for name, container in containers(template).items()}
    assert users["signer"] == users["signer-key"] and users["signer"] != users["coordinator"]
    assert users["coordinator"] == users["ray"]  # they share Ray's sockets and memory
    state = {
        name: mount.get("readOnly") for name, c in containers(template).items() for mount in c["volumeMounts"] if mount["name"] == "state"
    }
    assert state == {"signer": True, "coordinator": None}


def test_no_secret_is_rendered() -> None:
    """Secrets are named, never made, and no value of the environment is one."""
    for example in EXAMPLES:
        found = documents(example)
        assert not of_kind(found, "Secret")
        for name, template in pod_templates(found).items():
            for container in containers(template).values():
                for variable in container.get("env", ()):
                    if re.search("TOKEN|PASSWORD|SECRET|KEY|USER", variable["name"]):
                        assert "secretKeyRef" in variable["valueFrom"], f"{example}: {name}: {variable['name']}"


# --- Ray, network, versions


def test_system_config_survives_the_shell() -> None:
    """KubeRay pastes the parameters into a command line of a shell."""
    (cluster,) = of_kind(documents("minimal"), "RayCluster")
    (word,) = shlex.split(cluster["spec"]["headGroupSpec"]["rayStartParams"]["system-config"])
    assert json.loads(word)["health_check_failure_threshold"] == 3


@EVERYTHING
def test_ports_of_ray_are_inside_the_policy(example: str) -> None:
    found = documents(example)
    (cluster,) = of_kind(found, "RayCluster")
    policy = named(found, "NetworkPolicy", "-ray")["spec"]
    assert policy["ingress"][0]["ports"] == policy["egress"][0]["ports"]
    open_ports = {port for rule in policy["ingress"][0]["ports"] for port in range(rule["port"], rule["endPort"] + 1)}
    parameters = cluster["spec"]["headGroupSpec"]["rayStartParams"]
    needed = {int(parameters[name]) for name in ("port", "node-manager-port", "object-manager-port", "min-worker-port", "max-worker-port")}
    assert needed <= open_ports
    for group in cluster["spec"]["workerGroupSpecs"]:
        assert all(
            group["rayStartParams"][name] == parameters[name] for name in ("node-manager-port", "object-manager-port", "max-worker-port")
        )


@EVERYTHING
def test_policies_select_every_pod(example: str) -> None:
    found = documents(example)
    deny = named(found, "NetworkPolicy", "-deny")["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in deny and "egress" not in deny
    for name, template in pod_templates(found).items():
        if name != "test":
            assert deny["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items(), name


def test_a_digest_wins_over_the_tag() -> None:
    digest = "sha256:" + "0" * 63 + "1"
    images = {container["image"] for _, name, _, container in _everything() if name == "coordinator/coordinator"}
    assert f"registry.example.org/kernfarm/coordinator@{digest}" in images and "kernfarm/coordinator:0.1.0" in images


def test_one_version_everywhere() -> None:
    """Workers and coordinator must be of one version: chart, compose file and Makefile name the package's."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    named = re.findall(r"KERNFARM_VERSION:-([^}]+)}", (ROOT / "deploy/compose.yaml").read_text())
    assert set(named) == {version}
    assert f"kernfarm/$$target:{version} " in (ROOT / "Makefile").read_text()
    ray = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert ray is not None and yaml.safe_load((CHART / "values.yaml").read_text())["ray"]["version"] == ray[1]


def test_rendering_is_stable() -> None:
    """The same values give the same bytes: no chance in it that would restart pods at each upgrade."""
    done = helm("template", "farm", str(CHART), "--values", str(values_file("full")), "--kube-version", "1.34.0")
    assert done.stdout == text("full")
