"""Every setting of the farm's programs, in one place, with its unit and the reason for its default.

A program reads one YAML file (JSON is YAML too); unknown names are refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml

from kernel.errors import Code, FarmError

T = TypeVar("T")
MIB = 1 << 20
GIB = 1 << 30
# Above it a float no longer tells whole numbers apart.
_LARGEST_WHOLE = 1 << 53


@dataclass(frozen=True, slots=True)
class _Finite:
    """What a number has to be beside finite: in words, and the test."""

    words: str
    holds: Callable[[float], bool]


# The kinds of float that there are. Not a number and infinity are neither: a wait for them never ends, or at once.
Seconds = Annotated[float, _Finite("seconds above 0", lambda value: value > 0)]
SecondsOrZero = Annotated[float, _Finite("seconds, 0 or more", lambda value: value >= 0)]


def _setting(default: Any, why: str) -> Any:
    return field(default=default, metadata={"why": why})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """Where sources may come from. The public addresses are the defaults; a site points them at its mirrors."""

    kernel_org_url: str = _setting("https://cdn.kernel.org/pub/linux/kernel", "kernel.org's content delivery network")
    keyring: str = _setting(
        "", "file with public keys (armored or binary) in place of those that come with kernfarm, the kernel's release signers'"
    )
    extra_fingerprints: tuple[str, ...] = _setting((), "further signers a site accepts, as full OpenPGP fingerprints")
    git_protocols: tuple[str, ...] = _setting(
        ("https", "ssh"), "plain git:// and http:// are not authenticated, file:// reads the worker's disk"
    )
    fetch_timeout_seconds: Seconds = _setting(1800.0, "a 150 MB tarball over a 1 Mbit/s line")
    max_tarball_bytes: int = _setting(4 * GIB, "twenty times a kernel tarball of today: a bound against a hostile server")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """One worker: a Ray node that runs `slots` attempts at a time."""

    name: str = _setting("worker", "shown in lists and logs")
    state_dir: Path = _setting(Path("/var/lib/kernfarm/worker"), "unpacked trees and scratch folders; wants a fast local disk")
    blobs_url: str = _setting(
        "file:///var/lib/kernfarm/blobs", "shared by the coordinator and all workers: file:///FOLDER or s3://BUCKET/PREFIX"
    )
    blobs_options: dict[str, str] | None = _setting(None, "further options of the blob store: endpoint, region, allow_http")
    sandbox: str = _setting("bubblewrap", "bubblewrap, or none: then hostile sources own the worker")
    sandbox_uid: int = _setting(
        64000, "the user that build steps run as when the worker runs as root; Debian reserves 60000-64999 for such use"
    )
    slots: int = _setting(1, "attempts at a time; one keeps make's own -j scheduler in charge of all cores")
    jobs: int = _setting(1, "make -j of each attempt")
    memory_bytes: int = _setting(4 * GIB, "hard limit of one attempt; linking an allmodconfig vmlinux takes about 3 GiB")
    tree_cache_bytes: int = _setting(20 * GIB, "about 14 unpacked kernel trees")
    compile_cache: bool = _setting(True, "share compiler results through ccache; also a build with --clean does")
    sources: SourceSettings = field(default=SourceSettings(), metadata={"why": "mirrors and keys"})
    steps: str = _setting("worker.steps.table:STEPS", "table of step implementations as MODULE:NAME; tests put in their own")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The listener's certificate. The files are looked at again for each new connection: replace them and no restart is needed."""

    certificate: str = _setting("", "PEM file with the certificate and the intermediate ones; empty: no TLS, only on loopback or unix:")
    key: str = _setting("", "PEM file with its private key, which others must not be able to read")
    client_ca: str = _setting("", "PEM file with the authorities of clients' certificates; given, each connection needs one (mTLS)")


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """Tokens of an OpenID Connect provider. An empty issuer turns this off."""

    issuer: str = _setting("", "as in the tokens' `iss`, for example https://login.example.org/realms/kernel")
    audience: str = _setting("", "as in the tokens' `aud`: what the provider calls this farm")
    jwks: str = _setting("", "file or https:// address of the provider's keys; empty: found by the issuer's discovery document")
    team_claim: str = _setting("team", "claim that names the team")
    teams: dict[str, str] | None = _setting(None, "values of that claim and the teams they mean; empty: the value is the team")
    role_claim: str = _setting("role", "claim that names the role; of a list the highest role counts")
    roles: dict[str, str] | None = _setting(None, "values of that claim and the roles they mean; empty: the value is the role")
    leeway_seconds: SecondsOrZero = _setting(30.0, "how far the provider's clock and ours may differ")


_NO_TLS = TlsSettings()
_NO_OIDC = OidcSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Who may call. At least one way to tell callers apart is needed: there is no anonymous access."""

    tls: TlsSettings = field(default=_NO_TLS, metadata={"why": "certificate of the listener, authorities of clients"})
    tokens_file: str = _setting("", "YAML file with the hashes of bearer tokens (kernfarm token new); read again when it changes")
    oidc: OidcSettings = field(default=_NO_OIDC, metadata={"why": "tokens of an identity provider"})
    certificates: dict[str, str] | None = _setting(
        None, "clients known by certificate: URI name (spiffe://...) or subject (CN=ci,O=Example) to TEAM/ROLE; needs tls.client_ca"
    )
    audit_file: str = _setting("", "where mutating calls are recorded, a JSON line each; empty: audit.jsonl in state_dir")
    recheck_seconds: Seconds = _setting(5.0, "how long a call may outlive its token, or the right that it was given")


_NO_ACCESS = AccessSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """The coordinator: one process, one journal, one address."""

    listen: str = _setting("127.0.0.1:7420", "host:port or unix:///PATH; port 0 takes a free one. Anything but loopback needs TLS")
    access: AccessSettings = field(default=_NO_ACCESS, metadata={"why": "TLS, tokens, teams and roles"})
    address_file: str = _setting("", "where to write the address it listens on, once it serves")
    state_dir: Path = _setting(Path("/var/lib/kernfarm/coordinator"), "logs of builds and, by default, the journal")
    journal_url: str = _setting("", "SQLAlchemy URL; empty: SQLite in state_dir. postgresql+psycopg://... for a team")
    blobs_url: str = _setting("file:///var/lib/kernfarm/blobs", "as the workers' setting of that name: the same store")
    blobs_options: dict[str, str] | None = _setting(None, "further options of the blob store: endpoint, region, allow_http")
    ray_address: str = _setting("", "host:port of the Ray head's GCS")
    ray_node_ip: str = _setting("", "address of this machine in the Ray cluster; empty: Ray finds it out")
    ray_token_file: str = _setting("", "file with the cluster's token, mode 0600")
    metrics_listen: str = _setting("", "host:port to serve metrics on; empty: nowhere, because whoever reaches it may read them")
    metrics_address_file: str = _setting("", "where to write that address, as a target file for Prometheus' file_sd_configs")
    heartbeat_seconds: Seconds = _setting(2.0, "how often an attempt says that it lives")
    heartbeat_timeout_seconds: Seconds = _setting(20.0, "ten missed beats: a loaded node may be slow; a dead one Ray notices itself")
    step_timeout_seconds: Seconds = _setting(7200.0, "a link with LTO takes an hour on slow machines; nothing takes two")
    longest_shard_seconds: Seconds = _setting(120.0, "CPU time of a shard at most: what is done again when a worker is lost")
    signer_socket: str = _setting("", "Unix socket of the signer; empty: builds are not signed")
    source_ttl_seconds: SecondsOrZero = _setting(3600.0, "how long `debian:6.1` or a git branch means the tree it meant before")
    max_upload_bytes: int = _setting(4 * GIB, "as for fetched tarballs")
    memory_bytes: int = _setting(4 * GIB, "memory limit of an attempt, unless the worker's own is lower")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerSettings:
    """The signer: one process, under a user of its own, that alone can read the key."""

    socket: Path = _setting(Path("/run/kernfarm/signer.sock"), "Unix socket that the coordinator asks on; a path of at most 107 bytes")
    socket_gid: int = _setting(-1, "group that may connect; -1: only the signer's own user and root. Who may ask is allowed_uid")
    allowed_uid: int = _setting(0, "the coordinator's user: nobody else is answered")
    key_file: Path = _setting(
        Path("/var/lib/kernfarm/signer/signer.key"), "ECDSA P-256 key, PKCS#8 in PEM or a cosign.key; mode 0600, the signer's own"
    )
    password_file: str = _setting("", "file with the key's password, mode 0600, where the key has one")
    journal_url: str = _setting(
        "sqlite:////var/lib/kernfarm/coordinator/journal.sqlite", "the coordinator's journal; a user who can only read it will do"
    )
    blobs_url: str = _setting("file:///var/lib/kernfarm/blobs", "as the coordinator's setting of that name: the same store")
    blobs_options: dict[str, str] | None = _setting(None, "further options of the blob store: endpoint, region, allow_http")
    builder_id: str = _setting("urn:kernfarm:builder:default", "URI that names this farm in provenance; kernfarm verify --builder wants it")
    image_reference: str = _setting("docker.io/linuxkit/kernel", "repository that cosign's payload names; policies may compare it")


def why(kind: type[Any], name: str) -> str:
    """The reason given for a setting's default, for documentation."""
    return str(next(f.metadata["why"] for f in fields(kind) if f.name == name))


def load(kind: type[T], path: Path) -> T:
    """Settings of one program from its YAML file. Raises FarmError(MISSING_FILE or INVALID_ARGUMENT) naming file and setting."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read the settings: {error.strerror}", where=str(path)) from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FarmError(Code.INVALID_ARGUMENT, f"not YAML: {error}", where=str(path)) from error
    return read(kind, {} if values is None else values, where=str(path))


def read(kind: type[T], values: Any, *, where: str) -> T:
    """Settings from plain values, checked by name and type, numbers also by their kind. Raises FarmError(UNKNOWN_VALUE or
    INVALID_ARGUMENT) naming the setting."""
    if not isinstance(values, dict):
        raise FarmError(Code.INVALID_ARGUMENT, "expected a mapping of settings", where=where)
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]  # T is always a dataclass here
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise FarmError(Code.UNKNOWN_VALUE, f"unknown setting {name!r}", where=where, hint=hint)
    return kind(**{name: _convert(hints[name], value, f"{where}: {name}") for name, value in values.items()})


def plain(settings: Any) -> dict[str, Any]:
    """The settings as plain values that `read` takes back."""
    result: dict[str, Any] = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if isinstance(value, Path):
            value = str(value)
        elif hasattr(value, "__dataclass_fields__"):
            value = plain(value)
        elif isinstance(value, tuple):
            value = list(value)
        if value is not None or f.default is MISSING:
            result[f.name] = value
    return result


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        plain_hint, rule = typing.get_args(hint)
        number = _convert(plain_hint, value, where)
        if not (math.isfinite(number) and rule.holds(number)):
            raise FarmError(Code.INVALID_ARGUMENT, f"expected {rule.words}, got {value!r}", where=where)
        return number
    if origin is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if origin is dict and isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    if origin is types.UnionType:
        return None if value is None else _convert(typing.get_args(hint)[0], value, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hasattr(hint, "__dataclass_fields__"):
        return read(hint, value, where=where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_WHOLE:
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise FarmError(Code.INVALID_ARGUMENT, f"expected {getattr(hint, '__name__', hint)}, got {value!r}", where=where)
