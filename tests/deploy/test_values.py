"""A wrong value is refused before anything is installed, and the message names it."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kernfarm.settings import CoordinatorSettings, WorkerSettings, read
from tests.deploy.rendering import CHART, EXAMPLES, helm, named, values_file

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())

# A value as --set-json takes it, and what the message has to say.
WRONG = (
    ("ray.helth={}", "helth"),
    ("coordinator.port=0", "/coordinator/port"),
    ("coordinator.port=70000", "/coordinator/port"),
    ('coordinator.port="http"', "/coordinator/port"),
    ('coordinator.serviceType="Ingress"', "/coordinator/serviceType"),
    ('coordinator.state.size="20 GB"', "/coordinator/state/size"),
    ('coordinator.settings={"listen":"0.0.0.0:1"}', "listen"),
    ('coordinator.settings={"heartbeat_secnds":1}', "heartbeat_secnds"),
    ('coordinator.settings={"max_upload_bytes":"4Gi"}', "max_upload_bytes"),
    ('coordinator.resources.limits.memory="lots"', "/coordinator/resources/limits/memory"),
    ('coordinator.tolerations=[{"key":"farm","operator":"Is"}]', "/coordinator/tolerations/0/operator"),
    ('coordinator.podAnnotations={"checksum/config":"0"}', "/coordinator/podAnnotations"),
    ('coordinator.podAnnotations={"checksum/ray":"0"}', "/coordinator/podAnnotations"),
    ('coordinator.state.size="0Gi"', "/coordinator/state/size"),
    ('blobs.volume.size="0"', "/blobs/volume/size"),
    ('fullnameOverride="Kernels"', "/fullnameOverride"),
    ('image.pullSecrets=["registry","registry"]', "/image/pullSecrets"),
    ('image.pullPolicy="Sometimes"', "/image/pullPolicy"),
    ('image.worker.digest="sha256:123"', "/image/worker/digest"),
    ('image.worker.repository="Kernfarm Worker"', "/image/worker/repository"),
    ('journal.kind="mysql"', "/journal/kind"),
    ('journal.kind="postgresql"', "/journal/postgresql/host"),
    ('journal.postgresql.sslMode="disable"', "/journal/postgresql/sslMode"),
    ('journal.postgresql.password="hunter2"', "password"),
    ('blobs.kind="s3"', "/blobs/s3/bucket"),
    ('blobs.s3.endpoint="s3.example.org"', "/blobs/s3/endpoint"),
    ('blobs.s3.secretKey="AKIA"', "secretKey"),
    ('access.tls.secret=""', "/access/tls/secret"),
    ('access.oidc.issuer="http://login.example.org"', "/access/oidc/issuer"),
    ('access.oidc.issuer="https://login.example.org"', "/access/oidc/audience"),
    ('access.oidc.jwks="https://login.example.org/keys"', "jwks"),
    ('access.oidc.jwksUrl="http://login.example.org/keys"', "/access/oidc/jwksUrl"),
    ('access.oidc.jwksUrl="https://login.example.org/keys"', "/access/oidc/issuer"),
    ('access.oidc.jwksConfigMap="keys.json/"', "/access/oidc/jwksConfigMap"),
    ('access.oidc.jwksConfigMap="kernfarm-oidc"', "/access/oidc/issuer"),
    ('access.oidc.roles={"/devs":"owner"}', "/access/oidc/roles/"),
    ('access.certificates={"CN=jo":"kernel"}', "/access/certificates/CN=jo"),
    ('access.certificates={"CN=jo":"kernel/admin"}', "access.tls.clientCaSecret"),
    ('access.tokensSecret=""', "access.tokensSecret"),
    ("access.oidc.leewaySeconds=-1", "/access/oidc/leewaySeconds"),
    ('access.auditFile="/var/log/audit.jsonl"', "/access/auditFile"),
    ('access.auditFile="/var/lib/kernfarm/coordinator/../../audit.jsonl"', "/access/auditFile"),
    ('access.auditFile="/var/lib/kernfarm/coordinator/journal.sqlite"', "/access/auditFile"),
    ("access.recheckSeconds=0", "/access/recheckSeconds"),
    ('access.recheckSeconds="5s"', "/access/recheckSeconds"),
    ("signer.enabled=null", "/signer"),
    ('signer.keySecret=""', "/signer/keySecret"),
    ('signer.key="-----BEGIN PRIVATE KEY-----"', "key"),
    ('signer.builderId="our farm"', "/signer/builderId"),
    ('ray.tokenSecret=""', "/ray/tokenSecret"),
    ('ray.token="0123"', "token"),
    ('ray.version="latest"', "/ray/version"),
    ("ray.health.failures=0", "/ray/health/failures"),
    ('sandbox.mode="none"', "/sandbox/mode"),
    ('workerGroups.amd64.arch="x86_64"', "/workerGroups/amd64/arch"),
    ("workerGroups.amd64.slots=0", "/workerGroups/amd64/slots"),
    ("workerGroups.amd64.replicas=9", "workerGroups.amd64.replicas"),
    ("workerGroups.amd64.minReplicas=3", "workerGroups.amd64.replicas"),
    ('workerGroups.amd64.scratch.size="big"', "/workerGroups/amd64/scratch/size"),
    ('workerGroups.amd64.scratch.size="0.0Gi"', "/workerGroups/amd64/scratch/size"),
    ('workerGroups.amd64.nodeSelector={"kubernetes.io/arch":"amd64"}', "/workerGroups/amd64/nodeSelector"),
    ('workerGroups.amd64.settings={"sandbox":"none"}', "sandbox"),
    ('workerGroups.riscv={"arch":"amd64"}', "/workerGroups/riscv"),
    ("workerGroups.arm64.enabled=null", "/workerGroups/arm64"),
    ("networkPolicy.enabled=null", "/networkPolicy"),
    ('sources.kernelOrgUrl="ftp://example.org"', "/sources/kernelOrgUrl"),
    ('sources.kernelOrgUrl="https:///pub"', "/sources/kernelOrgUrl"),
    ('sources.kernelOrgUrl="https://jo:hunter2@mirror.example.org/pub"', "/sources/kernelOrgUrl"),
    ('sources.extraFingerprints=["647F28654894E3BD"]', "/sources/extraFingerprints/0"),
    ('sources.extraFingerprints=["0123456789ABCDEF0123456789ABCDEF01234567"]', "sources.keyringConfigMap"),
    ('sources.keyringConfigMap="Our keys"', "/sources/keyringConfigMap"),
    ('sources.keyring="/etc/keys"', "keyring"),
    ('sources.gitProtocols=["https","file"]', "/sources/gitProtocols/1"),
    ("sources.gitProtocols=[]", "/sources/gitProtocols"),
    ('sources.fetchTimeoutSeconds="1h"', "/sources/fetchTimeoutSeconds"),
    ("sources.fetchTimeoutSeconds=0", "/sources/fetchTimeoutSeconds"),
    ('sources.maxTarballBytes="4Gi"', "/sources/maxTarballBytes"),
    ("sources.maxTarballBytes=0", "/sources/maxTarballBytes"),
    ("metrics.serviceMonitor.enabled=true", "metrics.enabled"),
    ('metrics.serviceMonitor.interval="often"', "/metrics/serviceMonitor/interval"),
    ('metrics.rules.labels={"app.kubernetes.io/name":"rules"}', "/metrics/rules/labels"),
    ("networkPolicy.clients=[]", "/networkPolicy/clients"),
    ('networkPolicy.clients=[{"ipBlock":{"cidr":"192.0.2.0/24"},"podSelector":{}}]', "/networkPolicy/clients/0"),
    ('networkPolicy.monitoring=[{"ipBlock":{"cidr":"192.0.2.0/24"},"namespaceSelector":{}}]', "/networkPolicy/monitoring/0"),
    ('networkPolicy.clients=[{"pods":{}}]', "pods"),
    ('networkPolicy.sources.cidrs=["10.0.0.0"]', "/networkPolicy/sources/cidrs/0"),
    ("networkPolicy.sources.ports=[]", "/networkPolicy/sources/ports"),
    ("ray.autoscaling.enabled=true", "networkPolicy.apiServerCidrs"),
    ('podDisruptionBudget.maxUnavailable="some"', "/podDisruptionBudget/maxUnavailable"),
    ('podDisruptionBudget.maxUnavailable="50%"', "/podDisruptionBudget/maxUnavailable"),
)

_POSTGRESQL = 'journal.postgresql={"host":"db.example.org","credentialsSecret":"a","signerCredentialsSecret":"b"}'
_S3 = 'blobs.s3={"bucket":"kernels","endpoint":"https://s3.example.org:9000"}'
_OIDC = 'access.oidc={"issuer":"https://login.example.org","audience":"kernfarm"}'
# Values of which each is right, but not together. A space stands between two; the message has to name the one to change.
CONTRADICTIONS = (
    (f'journal.kind="postgresql" {_POSTGRESQL} journal.postgresql.signerCredentialsSecret=""', "postgresql.signerCredentialsSecret"),
    (f'journal.kind="postgresql" {_POSTGRESQL}', "networkPolicy.postgresqlCidrs"),
    (f'blobs.kind="s3" {_S3}', "networkPolicy.s3Cidrs"),
    (f'blobs.kind="s3" {_S3} networkPolicy.s3Cidrs=["192.0.2.0/24"]', "networkPolicy.s3Ports: blobs.s3.endpoint is on port 9000"),
    ('blobs.s3.endpoint="http://s3.example.org"', "blobs.s3.allowHttp"),
    (_OIDC, "networkPolicy.oidcCidrs"),
    (f'{_OIDC} access.oidc.jwksUrl="https://keys.example.org/"', "networkPolicy.oidcCidrs"),
    (f'{_OIDC} access.oidc.jwksUrl="https://keys.example.org/" access.oidc.jwksConfigMap="keys"', "/access/oidc/jwksUrl"),
    ('sources.kernelOrgUrl="http://mirror.example.org:8080/"', "networkPolicy.sources.ports: sources.kernelOrgUrl is on port 8080"),
    ('sources.gitProtocols=["https","git"]', "networkPolicy.sources.ports: sources.gitProtocols has git, which is on port 9418"),
    ("workerGroups.amd64.enabled=false workerGroups.arm64.enabled=false", "workerGroups: none is enabled"),
    ("workerGroups.amd64.slots=2", "workerGroups.amd64.resources.limits.memory: 10Gi"),
    ('workerGroups.amd64.resources.limits.memory="6442450944"', "workerGroups.amd64.resources.limits.memory: 6442450944"),
    ('workerGroups.arm64.scratch.size="20Gi"', "workerGroups.arm64.scratch.size: 20Gi"),
    ('ray.head.resources.requests.memory="5Gi"', "ray.head.resources.requests.memory: 5Gi is more than limits.memory, 4Gi"),
    ('workerGroups.arm64.resources.requests.memory="11G"', "workerGroups.arm64.resources.requests.memory: 11G"),
    ('signer.resources.limits={"cpu":"99m","memory":"1Gi"}', "signer.resources.requests.cpu: 100m is more than limits.cpu, 99m"),
    ("metrics.enabled=true metrics.port=7420", "metrics.port: 7420 is coordinator.port"),
    ("coordinator.port=6379", "coordinator.port: 6379 is one of Ray's"),
    ("metrics.enabled=true metrics.exporterPort=10500", "metrics.exporterPort: 10500 is one of Ray's"),
)
# A release, without any value of its own: no Service may be named after it.
RELEASES = (("9farm", "fullnameOverride: 9farm-kernfarm"), ("farm.v1", "fullnameOverride: farm.v1-kernfarm"))
CASES = (*WRONG, *CONTRADICTIONS, *RELEASES)


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, str]]:
    """helm's exit code and message for each wrong value; two at a time, it is a program of its own each time."""

    def ask(settings: str) -> tuple[int, str]:
        release = settings if "=" not in settings else "farm"
        sets = [word for each in re.split(r" (?=[a-zA-Z0-9.]+=)", settings) if each != release for word in ("--set-json", each)]
        done = helm("template", release, str(CHART), "--values", str(values_file("minimal")), *sets)
        return done.returncode, done.stderr

    helm("version")  # fetched once, not by both at the same time
    with ThreadPoolExecutor(2) as pool:
        return dict(zip([each for each, _ in CASES], pool.map(ask, [each for each, _ in CASES]), strict=True))


@pytest.mark.parametrize(("setting", "says"), CASES)
def test_wrong_value(answers: dict[str, tuple[int, str]], setting: str, says: str) -> None:
    code, message = answers[setting]
    assert code != 0 and says in message, message


def test_every_check_of_the_chart_is_tried(answers: dict[str, tuple[int, str]]) -> None:
    checks = re.findall(r'fail (?:\(printf )?"([^"]+)"', (CHART / "templates" / "checks.yaml").read_text())
    assert len(checks) > 15
    for check in checks:
        said = re.compile(re.sub(r"%[sd]", ".+", re.escape(check).replace("\\%", "%")))
        assert any(said.search(message) for _, message in answers.values()), check


def test_values_at_a_limit_are_taken() -> None:
    """The checks refuse what is wrong, and nothing else."""
    sets = ["workerGroups.amd64.slots=3", 'workerGroups.amd64.resources.limits.memory="20G"', 'blobs.kind="s3"', _S3]
    sets += ['networkPolicy.s3Cidrs=["192.0.2.0/24"]', "networkPolicy.s3Ports=[443,9000]", "coordinator.port=6386", "metrics.port=6386"]
    sets += ['sources.gitProtocols=["https","git"]', "networkPolicy.sources.ports=[443,9418]"]
    sets += ['networkPolicy.oidcCidrs=["192.0.2.0/24"]', _OIDC.replace("example.org", "example.org:8443/realms/kernel")]
    sets += ['ray.head.resources={"requests":{"cpu":"1","memory":"4Gi"},"limits":{"cpu":"1000m","memory":"4096Mi"}}']
    sets += ['signer.resources={"requests":{"cpu":"2"}}', 'coordinator.resources={"limits":{"memory":"2Gi"}}']
    sets += ['metrics.rules.labels={"app.kubernetes.io/part-of":"farm"}', 'coordinator.podAnnotations={"checksum/other":"0"}']
    words = [word for each in sets for word in ("--set-json", each)]
    done = helm("template", "farm", str(CHART), "--values", str(values_file("minimal")), *words)
    assert done.returncode == 0, done.stderr
    policies = [each for each in yaml.safe_load_all(done.stdout) if each["kind"] == "NetworkPolicy"]
    (coordinator,) = [each for each in policies if each["metadata"]["name"].endswith("-coordinator")]
    assert {port["port"] for rule in coordinator["spec"]["egress"] for port in rule["ports"]} == {443, 9000, 8443}


@pytest.mark.parametrize(
    ("keys", "cidrs", "ports"),
    [
        ('access.oidc.jwksUrl="https://keys.example.org:9443/set"', '["192.0.2.0/24"]', [9443]),
        ('access.oidc.jwksConfigMap="kernfarm-oidc"', "[]", []),
    ],
)
def test_only_what_is_asked_for_keys_is_let_out(keys: str, cidrs: str, ports: list[int]) -> None:
    """A provider's keys from a ConfigMap need no way to the provider."""
    sets = [word for each in (_OIDC, keys, f"networkPolicy.oidcCidrs={cidrs}") for word in ("--set-json", each)]
    done = helm("template", "farm", str(CHART), "--values", str(values_file("minimal")), *sets)
    assert done.returncode == 0, done.stderr
    policy = named(list(yaml.safe_load_all(done.stdout)), "NetworkPolicy", "-coordinator")
    assert [port["port"] for rule in policy["spec"].get("egress", ()) for port in rule["ports"]] == ports


def test_defaults_alone_say_what_is_missing() -> None:
    done = helm("template", "farm", str(CHART))
    assert done.returncode != 0
    for name in ("/access/tls/secret", "/signer/keySecret", "/ray/tokenSecret"):
        assert name in done.stderr


def _closed(schema: Any, where: str = "") -> list[str]:
    """Objects of a schema that would take any name."""
    if not isinstance(schema, dict):
        return []
    found = []
    if "properties" in schema and schema.get("type") == "object" and schema.get("additionalProperties", True) is not False:
        found.append(where)
    for name, value in schema.items():
        if name not in ("if", "then"):
            found += _closed(value, f"{where}/{name}")
    return found


def test_schema_is_a_schema_and_takes_no_unknown_names() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert _closed(SCHEMA) == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_fit_the_schema_as_helm_merges_them(example: str) -> None:
    def merge(below: Any, above: Any) -> Any:
        if isinstance(below, dict) and isinstance(above, dict):
            return {
                name: merge(below[name], above[name]) if name in below and name in above else {**below, **above}[name]
                for name in {**below, **above}
            }
        return above

    jsonschema.validate(merge(DEFAULTS, yaml.safe_load(values_file(example).read_text())), SCHEMA)


def _paths(value: Any, where: str = "") -> list[str]:
    if not isinstance(value, dict):
        return []
    return [path for name, below in value.items() for path in [f"{where}.{name}".lstrip("."), *_paths(below, f"{where}.{name}")]]


def test_every_value_of_the_schema_has_a_default() -> None:
    """values.yaml is the reference: what it does not show, nobody finds."""

    def known(schema: Any, where: str = "") -> list[str]:
        if "$ref" in schema:
            schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        return [
            path
            for name, below in schema.get("properties", {}).items()
            for path in [f"{where}.{name}".lstrip("."), *known(below, f"{where}.{name}")]
        ]

    shown = set(_paths(DEFAULTS))
    free = re.compile(r"^global$|resources\.|\.settings\.|affinity\.")  # Kubernetes' own, and further settings
    assert [path for path in known(SCHEMA) if path not in shown and not free.search(path)] == []


def test_further_settings_are_real_ones() -> None:
    """The schema lists which settings may be set beside those that the chart sets; each must exist, with such a value."""
    for name, kind in (("coordinatorSettings", CoordinatorSettings), ("workerSettings", WorkerSettings)):
        for setting, rule in SCHEMA["$defs"][name]["properties"].items():
            value: Any = True if rule["type"] == "boolean" else 1 if rule["type"] == "integer" else 1.5
            read(kind, {setting: value}, where=setting)


def test_no_file_of_the_chart_is_left_out() -> None:
    """`helm package` leaves out what .helmignore says: nothing that a template reads."""
    ignored = [line for line in (CHART / ".helmignore").read_text().split() if not line.startswith("#")]
    assert not {"rules/", "dashboards/", "templates/"} & set(ignored)
    assert Path(CHART / "values.schema.json").is_file()
