"""The chart's example values, rendered: valid for Kubernetes, and as safe as the design says."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import tomllib
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from kernfarm import settings
from kernfarm.settings import CoordinatorSettings, WorkerSettings, read
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
        found = documents(example)
        (cluster,) = of_kind(found, "RayCluster")
        for name, template in pod_templates(found).items():
            # The autoscaler, in the head's pod, asks Kubernetes for pods: there KubeRay makes an account.
            if name != "head" or not cluster["spec"]["enableInTreeAutoscaling"]:
                assert template["spec"]["automountServiceAccountToken"] is False, f"{example}: {name}"


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


# --- what the programs read


@EVERYTHING
def test_workers_settings(example: str) -> None:
    found = documents(example)
    (cluster,) = of_kind(found, "RayCluster")
    files = named(found, "ConfigMap", "-workers")["data"]
    assert {f"worker-{group['groupName']}.yaml" for group in cluster["spec"]["workerGroupSpecs"]} == set(files)
    for group in cluster["spec"]["workerGroupSpecs"]:
        config = read(WorkerSettings, yaml.safe_load(files[f"worker-{group['groupName']}.yaml"]), where=group["groupName"])
        # The coordinator gives a node as many attempts as it has of this resource.
        assert json.loads(shlex.split(group["rayStartParams"]["resources"])[0]) == {"kernfarm_slot": config.slots}
        limit = containers(group["template"])["ray-worker"]["resources"]["limits"]["memory"]
        assert int(limit.removesuffix("Gi")) << 30 > config.memory_bytes * config.slots


@EVERYTHING
def test_settings_of_the_coordinator_and_the_signer(example: str) -> None:
    absent = [name for name in ("coordinator.access.gate", "coordinator.signer", "worker.exporter") if not _there(name)]
    if absent:
        pytest.skip(f"this farm has no {', '.join(absent)}")
    found = documents(example)
    values = yaml.safe_load(named(found, "ConfigMap", "-coordinator")["data"]["coordinator.yaml"])
    coordinator: Any = read(CoordinatorSettings, values, where="coordinator.yaml")
    values = yaml.safe_load(named(found, "ConfigMap", "-signer")["data"]["signer.yaml"])
    signer: Any = read(vars(settings)["SignerSettings"], values, where="signer.yaml")
    users = {name: each["securityContext"]["runAsUser"] for name, each in containers(pod_templates(found)["coordinator"]).items()}
    assert (str(signer.socket), signer.allowed_uid) == (coordinator.signer_socket, users["coordinator"])
    assert signer.journal_url == coordinator.journal_url
    assert bool(coordinator.metrics_listen) == (example == "full")
    assert coordinator.access.tls.certificate and (coordinator.access.tokens_file or coordinator.access.oidc.issuer)


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


def test_rules_know_the_jobs_that_the_monitors_name() -> None:
    found = documents("full")
    endpoints = [
        *named(found, "ServiceMonitor", "-coordinator")["spec"]["endpoints"],
        *named(found, "PodMonitor", "-workers")["spec"]["podMetricsEndpoints"],
    ]
    jobs = {each["replacement"] for endpoint in endpoints for each in endpoint["relabelings"] if each["targetLabel"] == "job"}
    asked = {job for rule in of_kind(found, "PrometheusRule") for job in re.findall(r'job="([^"]+)"', json.dumps(rule).replace('\\"', '"'))}
    assert asked <= jobs == {"kernfarm-coordinator", "kernfarm-worker"}


@EVERYTHING
def test_all_programs_mean_the_same_store(example: str) -> None:
    found = documents(example)
    files = [text for each in of_kind(found, "ConfigMap") for name, text in each["data"].items() if name.endswith(".yaml")]
    stores = {json.dumps([each["blobs_url"], each.get("blobs_options")]) for each in map(yaml.safe_load, files)}
    assert len(stores) == 1


@EVERYTHING
def test_mounted_files_are_those_in_the_settings(example: str) -> None:
    """A path in the settings without a mount is found out only in the cluster otherwise."""
    found = documents(example)
    template = pod_templates(found)["coordinator"]
    for program in ("coordinator", "signer"):
        mounts = {mount["mountPath"] for mount in containers(template)[program]["volumeMounts"]}
        config = named(found, "ConfigMap", f"-{program}")["data"][f"{program}.yaml"]
        for path in re.findall(r"(?:[: ]|file://|sqlite:///|=)(/(?:etc|run|var)/[^\s\"&]+)", config):
            assert any(path == mount or path.startswith(mount + "/") for mount in mounts), f"{program}: {path}"


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


def test_dashboards_and_rules_of_the_chart_are_installed() -> None:
    found = documents("full")
    names = {path.stem for path in (CHART / "rules").glob("*.yaml")}
    assert {rule["metadata"]["name"] for rule in of_kind(found, "PrometheusRule")} == {f"kernels-{name}" for name in names}
    shipped = {path.name: path.read_text().rstrip("\n") for path in (CHART / "dashboards").glob("*.json")}
    maps = [each["data"] for each in of_kind(found, "ConfigMap") if each["metadata"]["name"].endswith("-dashboards")]
    assert {name: text.rstrip("\n") for data in maps for name, text in data.items()} == shipped
    assert {each["kind"] for each in found} >= {"ServiceMonitor", "PodMonitor"}


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
