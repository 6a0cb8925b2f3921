"""Where a client's credentials come from, what the embedded farm makes for itself, and `kernfarm token new`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from kernel.errors import Code, FarmError
from kernfarm import credentials
from kernfarm.cli.authority import Files
from kernfarm.cli.main import main
from kernfarm.credentials import Credentials, Places
from kernfarm.private import write_private
from kernfarm.tokens import PREFIX, hash_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ADDRESS = "farm.example.org:7420"


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, text.encode())
    return path


@pytest.fixture
def everywhere(tmp_path: Path) -> dict[str, str]:
    """Credentials in each place for one farm; the environment that names them."""
    put(tmp_path / "config/kernfarm/token", "of config\n")
    put(tmp_path / "config/kernfarm/ca.pem", "ca of config")
    put(tmp_path / "config/kernfarm/farms.yaml", yaml.safe_dump({ADDRESS: {"token_file": "token", "ca": "ca.pem"}}))
    put(tmp_path / "state/credentials/token", "of state")
    put(tmp_path / "state/credentials/ca.pem", "ca of state")
    put(tmp_path / "state/address", ADDRESS + "\n")
    put(tmp_path / "env-ca", "ca of environment")
    put(tmp_path / "env-token", "of environment's file")
    put(tmp_path / "flag", "of flag")
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "KERNFARM_CA": str(tmp_path / "env-ca"), "KERNFARM_TOKEN": "of environment"}


def found(home: Path, environment: dict[str, str], flags: Places | None = None, address: str = ADDRESS) -> tuple[str, bytes | None]:
    got = credentials.find(address, flags=flags or Places(), environment=environment, state=home / "state")
    return got.token, got.ca


def test_the_nearest_place_wins(tmp_path: Path, everywhere: dict[str, str]) -> None:
    flags = Places(ca=tmp_path / "flag", token_file=tmp_path / "flag")
    assert found(tmp_path, everywhere, flags) == ("of flag", b"of flag")
    assert found(tmp_path, everywhere) == ("of environment", b"ca of environment")
    del everywhere["KERNFARM_TOKEN"]
    everywhere["KERNFARM_TOKEN_FILE"] = str(tmp_path / "env-token")
    assert found(tmp_path, everywhere) == ("of environment's file", b"ca of environment")
    assert found(tmp_path, {"XDG_CONFIG_HOME": everywhere["XDG_CONFIG_HOME"]}) == ("of config", b"ca of config")
    assert found(tmp_path, {"HOME": str(tmp_path)}) == ("of state", b"ca of state")


def test_a_token_is_for_its_own_farm(tmp_path: Path, everywhere: dict[str, str]) -> None:
    config = {"XDG_CONFIG_HOME": everywhere["XDG_CONFIG_HOME"]}
    assert found(tmp_path, config, address="evil.example.org:7420") == ("", None)


def test_a_token_of_the_environment_has_to_be_one_too(tmp_path: Path) -> None:
    with pytest.raises(FarmError, match="this is no token") as caught:
        found(tmp_path, {"HOME": str(tmp_path), "KERNFARM_TOKEN": "sec\nret"})
    assert "sec" not in str(caught.value)


def test_without_any_place_nothing_is_shown(tmp_path: Path) -> None:
    assert found(tmp_path, {"HOME": str(tmp_path)}) == ("", None)


def test_secrets_are_not_printed() -> None:
    assert "secret" not in repr(Credentials(key=b"secret", token="secret"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda home: (home / "state/credentials/token").chmod(0o644), "others can get at the token"),
        (lambda home: (home / "state/credentials/token").unlink(), "cannot read the token"),
        (lambda home: (home / "state/credentials/ca.pem").unlink(), "cannot read the farm's authority"),
        (lambda home: put(home / "state/credentials/token", "two\nlines"), "this is no token"),
        (lambda home: put(home / "state/credentials/token", "\n"), "holds no token"),
        (lambda home: put(home / ".config/kernfarm/farms.yaml", f"'{ADDRESS}': {{tokenfile: x}}"), "something else in it"),
        (lambda home: put(home / ".config/kernfarm/farms.yaml", "{"), "cannot be read"),
    ],
)
@pytest.mark.usefixtures("everywhere")
def test_what_cannot_be_used_is_said(tmp_path: Path, spoil: object, said: str) -> None:
    assert callable(spoil)
    spoil(tmp_path)
    with pytest.raises(FarmError, match=said):
        found(tmp_path, {"HOME": str(tmp_path)})


def test_certificate_and_key_go_together(tmp_path: Path) -> None:
    with pytest.raises(FarmError, match="go together"):
        found(tmp_path, {"HOME": str(tmp_path)}, Places(cert=tmp_path / "x"))


# The embedded farm's own


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_an_embedded_farm_has_credentials_that_only_its_user_can_read(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.ensure("127.0.0.1:0", NOW)
    certificate(files.certificate).verify_directly_issued_by(certificate(files.ca))
    names = certificate(files.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert "127.0.0.1" in [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    assert files.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in files.folder.iterdir()} == {0o600}
    token = files.token.read_text().strip()
    assert token.startswith(PREFIX)
    entries = yaml.safe_load(files.tokens.read_text())["tokens"]
    assert [(each["sha256"], each["team"], each["role"]) for each in entries] == [(hash_of(token), "default", "admin")]


def kept(files: Files) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files.folder.iterdir()}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


SERVER = {"server.pem", "server-key.pem"}
AUTHORITY = {"ca.pem", "ca-key.pem", *SERVER}


@pytest.mark.parametrize(
    ("later", "listen", "new"),
    [
        (timedelta(days=0), "127.0.0.1:0", set()),
        (timedelta(days=334), "127.0.0.1:0", set()),
        (timedelta(days=336), "127.0.0.1:0", SERVER),
        (timedelta(days=400), "127.0.0.1:0", SERVER),
        (timedelta(days=3630), "127.0.0.1:0", AUTHORITY),
        (timedelta(days=0), "192.0.2.7:7420", SERVER),
        (timedelta(days=0), "farm.example.org:7420", SERVER),
        (timedelta(days=0), f"unix:///{'x' * 10}", set()),
    ],
)
def test_certificates_are_renewed_in_time_and_for_new_names(tmp_path: Path, later: timedelta, listen: str, new: set[str]) -> None:
    files = Files(tmp_path)
    files.ensure("127.0.0.1:0", NOW)
    before = kept(files)
    files.ensure(listen, NOW + later)
    assert changed(before, kept(files)) == new
    made = certificate(files.certificate)
    made.verify_directly_issued_by(certificate(files.ca))
    assert made.not_valid_after_utc > NOW + later + timedelta(days=29)


def test_lost_tokens_are_made_anew_and_added_lines_stay(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.ensure("127.0.0.1:0", NOW)
    first = files.token.read_text()
    files.tokens.unlink()
    files.ensure("127.0.0.1:0", NOW)
    assert files.token.read_text() == first
    assert hash_of(first.strip()) in files.tokens.read_text()
    files.token.unlink()
    files.ensure("127.0.0.1:0", NOW)
    hashes = {entry["sha256"] for entry in yaml.safe_load(files.tokens.read_text())["tokens"]}
    assert hashes == {hash_of(first.strip()), hash_of(files.token.read_text().strip())}


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "credentials").touch()
    with pytest.raises(FarmError) as caught:
        Files(tmp_path).ensure("127.0.0.1:0", NOW)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT


def test_a_new_token_is_shown_once_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "new", "--team", "kernel", "--role", "submitter", "--name", "ci", "--days", "30"]) == 0
    token, line = capsys.readouterr().out.splitlines()
    (entry,) = yaml.safe_load(line)
    assert entry["sha256"] == hash_of(token)
    assert (entry["team"], entry["role"], entry["name"]) == ("kernel", "submitter", "ci")
    assert timedelta(days=29) < datetime.fromisoformat(entry["expires"]) - datetime.now(UTC) < timedelta(days=31)


def test_a_new_token_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "new", "--team", "kernel", "--role", "reader", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["entry"] == {"sha256": hash_of(made["token"]), "team": "kernel", "role": "reader", "name": "kernel-reader"}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--team", "X Y"),
        ("--team", "release"),
        ("--team", ""),
        ("--name", ""),
        ("--name", "a\nb"),
        ("--name", "n" * 201),
        ("--days", "99999999"),
    ],
)
def test_a_line_that_the_farm_would_refuse_is_not_printed(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "new", "--team", "kernel", "--role", "reader", flag, value]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert flag in shown.err
