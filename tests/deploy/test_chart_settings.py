"""The files that the chart gives to the programs: their own settings, all of them known, and what they name is mounted."""

from __future__ import annotations

import json
import re
import shlex
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from kernfarm.settings import AccessSettings, CoordinatorSettings, OidcSettings, SignerSettings, SourceSettings, WorkerSettings, load, read
from tests.deploy.rendering import CHART, EXAMPLES, containers, documents, named, of_kind, pod_templates

EVERYTHING = pytest.mark.parametrize("example", EXAMPLES)
# Settings that a farm on Kubernetes has no use for, or whose default is the only good value.
LEFT_OUT = {
    CoordinatorSettings: {"address_file", "metrics_address_file", "ray_node_ip"},  # the chart's addresses are known beforehand
    SignerSettings: set[str](),
    WorkerSettings: {"steps"},  # for tests
}
PROGRAMS: tuple[tuple[type[Any], str, str], ...] = (
    (CoordinatorSettings, "-coordinator", "coordinatorSettings"),
    (SignerSettings, "-signer", ""),
    (WorkerSettings, "-workers", "workerSettings"),
)


def _names(value: dict[str, Any], where: str = "") -> Iterator[str]:
    for name, below in value.items():
        yield where + name
        if isinstance(below, dict):
            yield from _names(below, f"{where}{name}.")


def _known(kind: type[Any], where: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for each in fields(kind):
        if is_dataclass(hints[each.name]):
            yield from _known(hints[each.name], f"{where}{each.name}.")
        else:
            yield where + each.name


@EVERYTHING
@pytest.mark.parametrize(("kind", "ending", "_"), PROGRAMS)
def test_the_programs_take_their_files(kind: type[Any], ending: str, _: str, example: str, tmp_path: Path) -> None:
    for name, text in named(documents(example), "ConfigMap", ending)["data"].items():
        (tmp_path / name).write_text(text)
        load(kind, tmp_path / name)


@pytest.mark.parametrize(("kind", "ending", "further"), PROGRAMS)
def test_every_setting_can_be_set_or_is_left_out_for_a_reason(kind: type[Any], ending: str, further: str) -> None:
    """Whoever adds a setting decides whether the chart's users need it."""
    files = [text for example in EXAMPLES for text in named(documents(example), "ConfigMap", ending)["data"].values()]
    rendered = {name for text in files for name in _names(yaml.safe_load(text))}
    schema = json.loads((CHART / "values.schema.json").read_text())["$defs"]
    free = set(schema[further]["properties"]) if further else set()
    assert set(_known(kind)) - rendered - free == LEFT_OUT[kind]


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
    found = documents(example)
    values = yaml.safe_load(named(found, "ConfigMap", "-coordinator")["data"]["coordinator.yaml"])
    coordinator = read(CoordinatorSettings, values, where="coordinator.yaml")
    values = yaml.safe_load(named(found, "ConfigMap", "-signer")["data"]["signer.yaml"])
    signer = read(SignerSettings, values, where="signer.yaml")
    users = {name: each["securityContext"]["runAsUser"] for name, each in containers(pod_templates(found)["coordinator"]).items()}
    assert (str(signer.socket), signer.allowed_uid) == (coordinator.signer_socket, users["coordinator"])
    assert signer.journal_url == coordinator.journal_url
    assert bool(coordinator.metrics_listen) == (example == "full")
    assert coordinator.access.tls.certificate and (coordinator.access.tokens_file or coordinator.access.oidc.issuer)


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
    templates = pod_templates(found)
    programs = [("coordinator", "coordinator", "-coordinator"), ("coordinator", "signer", "-signer")]
    programs += [(name, "ray-worker", "-workers") for name in templates if name.startswith("worker-")]
    for pod, program, config in programs:
        mounts = {mount["mountPath"] for mount in containers(templates[pod])[program]["volumeMounts"]}
        volumes = {volume["name"] for volume in templates[pod]["spec"]["volumes"]}
        assert {mount["name"] for mount in containers(templates[pod])[program]["volumeMounts"]} <= volumes
        text = named(found, "ConfigMap", config)["data"][f"{pod if program == 'ray-worker' else program}.yaml"]
        for path in re.findall(r"(?:[: ]|file://|sqlite:///|=)(/(?:etc|run|var)/[^\s\"&]+)", text):
            assert any(path == mount or path.startswith(mount + "/") for mount in mounts), f"{pod}/{program}: {path}"


def test_sources_and_keys_are_as_the_values_say() -> None:
    found = documents("full")
    templates = pod_templates(found)
    for name, text in named(found, "ConfigMap", "-workers")["data"].items():
        sources = read(WorkerSettings, yaml.safe_load(text), where=name).sources
        assert sources == SourceSettings(
            kernel_org_url="https://mirror.example.org/pub/linux/kernel",
            keyring="/etc/kernfarm/keyring/keyring",
            extra_fingerprints=("0123456789ABCDEF0123456789ABCDEF01234567",),
            git_protocols=("https",),
            fetch_timeout_seconds=600.0,
            max_tarball_bytes=1 << 30,
        )
        assert _file_of(templates[name.removesuffix(".yaml")], "ray-worker", sources.keyring) == ("kernfarm-signers", "keyring")
    values = yaml.safe_load(named(found, "ConfigMap", "-coordinator")["data"]["coordinator.yaml"])
    jwks = read(CoordinatorSettings, values, where="coordinator.yaml").access.oidc.jwks
    assert _file_of(templates["coordinator"], "coordinator", jwks) == ("kernfarm-oidc", "jwks.json")


def _access(found: list[dict[str, Any]]) -> AccessSettings:
    values = yaml.safe_load(named(found, "ConfigMap", "-coordinator")["data"]["coordinator.yaml"])
    return read(CoordinatorSettings, values, where="coordinator.yaml").access


def test_how_callers_are_checked_and_recorded_is_as_the_values_say() -> None:
    access = _access(documents("full"))
    assert (access.recheck_seconds, access.oidc.leeway_seconds) == (0.5, 5.0)
    assert access.audit_file == "/var/lib/kernfarm/coordinator/calls.jsonl"


def test_without_values_callers_are_checked_as_the_settings_say() -> None:
    """The chart repeats the defaults of the settings: they must not drift apart."""
    minimal = _access(documents("minimal"))
    assert (minimal.recheck_seconds, minimal.audit_file) == (AccessSettings().recheck_seconds, AccessSettings().audit_file)
    oidc = "access.oidc.issuer=https://login.example.org,access.oidc.audience=kernfarm,networkPolicy.oidcCidrs={192.0.2.0/24}"
    assert _access(documents("minimal", oidc)).oidc.leeway_seconds == OidcSettings().leeway_seconds


def test_the_audit_record_is_on_a_volume_that_outlives_the_pod() -> None:
    """Wherever it may be told to be, the claim of the coordinator's state is mounted, to be written."""
    found = documents("full")
    template = pod_templates(found)["coordinator"]
    folder = Path(_access(found).audit_file).parent
    (mount,) = [each for each in containers(template)["coordinator"]["volumeMounts"] if Path(each["mountPath"]) == folder]
    (volume,) = [each for each in template["spec"]["volumes"] if each["name"] == mount["name"]]
    assert "persistentVolumeClaim" in volume and not mount.get("readOnly", False)


def _file_of(template: dict[str, Any], container: str, path: str) -> tuple[str, str]:
    """The ConfigMap and the key in it that a container finds as a file."""
    folder, _, name = path.rpartition("/")
    (mount,) = [each for each in containers(template)[container]["volumeMounts"] if each["mountPath"] == folder]
    (volume,) = [each for each in template["spec"]["volumes"] if each["name"] == mount["name"]]
    (item,) = [each for each in volume["configMap"]["items"] if each["path"] == name]
    return volume["configMap"]["name"], item["key"]


def test_keys_can_come_from_an_address() -> None:
    address = "https://login.example.org/keys"
    found = documents("full", "access.oidc.jwksConfigMap=", f"access.oidc.jwksUrl={address}", "networkPolicy.oidcCidrs={192.0.2.0/24}")
    values = yaml.safe_load(named(found, "ConfigMap", "-coordinator")["data"]["coordinator.yaml"])
    assert read(CoordinatorSettings, values, where="coordinator.yaml").access.oidc.jwks == address


def test_without_values_sources_are_those_of_the_settings() -> None:
    """The chart repeats the defaults of the settings: they must not drift apart."""
    for name, text in named(documents("minimal"), "ConfigMap", "-workers")["data"].items():
        assert read(WorkerSettings, yaml.safe_load(text), where=name).sources == SourceSettings()
