from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from kernel.errors import Code, FarmError
from kernfarm import settings
from kernfarm.settings import AccessSettings, CoordinatorSettings, OidcSettings, SignerSettings, SourceSettings, TlsSettings, WorkerSettings


@pytest.mark.parametrize("kind", [CoordinatorSettings, WorkerSettings, SourceSettings, AccessSettings, TlsSettings, OidcSettings])
def test_each_setting_has_a_reason(kind: type[Any]) -> None:
    assert all(settings.why(kind, f.name) for f in fields(kind))


@pytest.mark.parametrize("kind", [CoordinatorSettings, WorkerSettings])
def test_defaults_survive_the_file(kind: type[Any], tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(settings.plain(kind())))
    assert settings.load(kind, path) == kind()


def test_nested_and_optional_values(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("blobs_options: {region: x}\nsources: {git_protocols: [file], fetch_timeout_seconds: 5}\nstate_dir: /s\n")
    read = settings.load(WorkerSettings, path)
    assert read.blobs_options == {"region": "x"}
    assert read.sources.git_protocols == ("file",)
    assert read.sources.fetch_timeout_seconds == 5.0
    assert read.state_dir == Path("/s")


def test_access_is_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "access:\n  tls: {certificate: c, key: k}\n  certificates: {'CN=jo': kernel/admin}\n  oidc: {issuer: i, teams: {a: b}}\n"
    )
    access = settings.load(CoordinatorSettings, path).access
    assert access.tls == TlsSettings(certificate="c", key="k")
    assert access.certificates == {"CN=jo": "kernel/admin"}
    assert access.oidc == OidcSettings(issuer="i", teams={"a": "b"})


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("slotts: 2", Code.UNKNOWN_VALUE, "did you mean 'slots'"),
        ("slots: two", Code.INVALID_ARGUMENT, "slots: expected int"),
        ("slots: true", Code.INVALID_ARGUMENT, "slots: expected int"),
        ("[1]", Code.INVALID_ARGUMENT, "expected a mapping"),
        ("a: [", Code.INVALID_ARGUMENT, "not YAML"),
        ("sources: {keyrin: x}", Code.UNKNOWN_VALUE, "did you mean 'keyring'"),
    ],
)
def test_wrong_settings_are_named(text: str, code: Code, said: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(FarmError) as caught:
        settings.load(WorkerSettings, path)
    assert caught.value.problem.code is code
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FarmError) as caught:
        settings.load(WorkerSettings, tmp_path / "none.yaml")
    assert caught.value.problem.code is Code.MISSING_FILE


def floats(kind: type[Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of a program's settings that are floats."""
    for name, hint in typing.get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from floats(typing.cast(type[Any], hint), f"{prefix}{name}.")
        elif hint is float:
            yield prefix + name


FLOATS = [(kind, name) for kind in (CoordinatorSettings, WorkerSettings, SignerSettings) for name in floats(kind)]
MAY_BE_ZERO = ("access.oidc.leeway_seconds", "source_ttl_seconds")


def load_one(kind: type[Any], name: str, value: str, folder: Path) -> Any:
    path = folder / "settings.yaml"
    *outer, inner = name.split(".")
    path.write_text("".join(f"{each}: {{" for each in outer) + f"{inner}: {value}" + "}" * len(outer))
    return settings.load(kind, path)


@pytest.mark.parametrize("value", ["0", "0.0", "-1", ".nan", ".inf", "-.inf", "1" + "0" * 400])
@pytest.mark.parametrize(("kind", "name"), FLOATS)
def test_times_are_finite_and_above_zero(kind: type[Any], name: str, value: str, tmp_path: Path) -> None:
    if name in MAY_BE_ZERO and value in ("0", "0.0"):
        load_one(kind, name, value, tmp_path)
        return
    with pytest.raises(FarmError, match="expected ") as caught:
        load_one(kind, name, value, tmp_path)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert caught.value.problem.where.endswith(name.rpartition(".")[2])


@pytest.mark.parametrize(("kind", "name"), FLOATS)
def test_short_times_are_times(kind: type[Any], name: str, tmp_path: Path) -> None:
    load_one(kind, name, "0.01", tmp_path)
