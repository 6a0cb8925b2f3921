"""Roles, the tokens file, the audit record and the table of uploads, each on its own."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.access.audit import Audit
from coordinator.access.callers import Caller, Role, caller
from coordinator.access.ownership import Ownership
from coordinator.access.tokens import TokenFile
from coordinator.journal import Journal
from kernel.errors import Code, FarmError
from kernfarm.private import read_private, write_private
from kernfarm.tokens import TokenEntry, hash_of, new_token
from tests.served import Tokens
from worker import ccache

WHO = Caller(team="t", name="n", role=Role.SUBMITTER, proof="token")
LATER = "2030-01-01T00:00:00Z"
AT_LATER = 1893456000.0


@pytest.mark.parametrize(("needed", "may"), [("reader", "reader submitter admin"), ("submitter", "submitter admin"), ("admin", "admin")])
def test_each_role_includes_those_below(needed: str, may: str) -> None:
    allowed = {role for role in Role if Caller(team="t", name="n", role=role, proof="token").may(Role(needed))}
    assert allowed == set(may.split())


@given(st.text(max_size=70))
def test_a_team_that_is_taken_is_a_harmless_folder_name(name: str) -> None:
    try:
        taken = caller(team=name, name="n", role="reader", proof="token", where="w").team
    except FarmError as error:
        assert error.problem.code is Code.INVALID_ARGUMENT
    else:
        assert Path("/base", taken).parent == Path("/base")
        assert ccache._DOMAIN.fullmatch(taken), "its builds have a compile cache"
        assert taken not in ("", ".", "..", "*", "release")


@pytest.mark.parametrize("team", ["*", "release", "..", "a.b", "A", "", "a/b", "a\n", None, 7])
def test_other_teams_are_refused(team: object) -> None:
    with pytest.raises(FarmError, match="no team's name"):
        caller(team=team, name="n", role="reader", proof="token", where="w")


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.yaml")


def code_of(file: TokenFile, token: str, now: float = 0.0) -> Code:
    with pytest.raises(FarmError) as caught:
        file.caller(token, now)
    assert not token or token not in str(caught.value)
    return caught.value.problem.code


def test_known_tokens_are_callers_and_others_are_not(tokens: Tokens) -> None:
    mine = tokens.add("kernel", "submitter")
    file = TokenFile(tokens.path)
    assert file.caller(mine, 0.0) == Caller(team="kernel", name="kernel-submitter", role=Role.SUBMITTER, proof="token")
    for other in (new_token(), "", hash_of(mine), mine + "x", mine[:-1]):
        assert code_of(file, other) is Code.UNAUTHENTICATED


def test_a_token_ends_when_it_expires(tokens: Tokens) -> None:
    mine = tokens.add("kernel", "reader", expires=LATER)
    file = TokenFile(tokens.path)
    file.caller(mine, AT_LATER - 1)
    assert code_of(file, mine, AT_LATER) is Code.UNAUTHENTICATED


def test_an_expiry_that_yaml_reads_itself_is_the_same(tokens: Tokens) -> None:
    token = new_token()
    entry = f"tokens:\n- {{sha256: {hash_of(token)}, team: t, role: reader, name: n, expires: 2030-01-01T00:00:00Z}}\n"
    write_private(tokens.path, entry.encode())
    file = TokenFile(tokens.path)
    file.caller(token, AT_LATER - 1)
    assert code_of(file, token, AT_LATER) is Code.UNAUTHENTICATED


def test_changes_of_the_file_count_at_once(tokens: Tokens) -> None:
    mine = tokens.add("kernel", "submitter")
    file = TokenFile(tokens.path)
    tokens.change(mine, role="reader")
    assert file.caller(mine, 0.0).role is Role.READER
    new = tokens.add("other", "admin")
    assert file.caller(new, 0.0).team == "other"
    tokens.revoke(mine)
    assert code_of(file, mine) is Code.UNAUTHENTICATED


def test_a_file_that_others_can_read_is_refused_at_start_and_later(tokens: Tokens) -> None:
    mine = tokens.add("kernel", "submitter")
    file = TokenFile(tokens.path)
    tokens.path.chmod(0o644)
    assert code_of(file, mine) is Code.UNAVAILABLE
    with pytest.raises(FarmError) as caught:
        TokenFile(tokens.path)
    assert caught.value.problem.hint == f"chmod 600 {tokens.path}"
    tokens.path.chmod(0o640)
    assert file.caller(mine, 0.0).team == "kernel", "the group may: so Kubernetes mounts secrets"


@pytest.mark.parametrize("text", ["", "tokens: {}", "tokens: [", "other: []", "- a", "tokens: [{team: t}]", "tokens: ['x']", "\xff"])
def test_a_file_that_has_become_wrong_lets_nobody_in(tokens: Tokens, text: str, caplog: pytest.LogCaptureFixture) -> None:
    mine = tokens.add("kernel", "submitter")
    file = TokenFile(tokens.path)
    write_private(tokens.path, text.encode("latin-1"))
    with caplog.at_level(logging.ERROR):
        assert code_of(file, mine) is Code.UNAVAILABLE
    assert str(tokens.path) in caplog.text
    tokens.add("kernel", "reader")
    assert file.caller(mine, 0.0).team == "kernel"


def test_a_file_that_is_gone_lets_nobody_in(tokens: Tokens) -> None:
    mine = tokens.add("kernel", "submitter")
    file = TokenFile(tokens.path)
    tokens.path.unlink()
    assert code_of(file, mine) is Code.UNAVAILABLE


GOOD = {"sha256": "0" * 64, "team": "t", "role": "reader", "name": "n"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "kft_secret"}, "not 64 hex digits"),
        ({"role": "root"}, "no role: 'root'"),
        ({"team": "release"}, "no team's name"),
        ({"name": ""}, "no caller's name"),
        ({"expires": "tomorrow"}, "expires is no time"),
        ({"expiry": LATER}, "expected sha256"),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, change: dict[str, str], said: str) -> None:
    path = tmp_path / "tokens.yaml"
    write_private(path, json.dumps({"tokens": [{**GOOD, "sha256": "1" * 64}, {**GOOD, **change}]}).encode())
    with pytest.raises(FarmError, match=said) as caught:
        TokenFile(path)
    assert caught.value.problem.where == f"{path}: entry 2"
    assert "kft_secret" not in str(caught.value)


def test_one_hash_twice_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "t", json.dumps({"tokens": [GOOD, {**GOOD, "role": "admin"}]}).encode())
    with pytest.raises(FarmError, match="twice"):
        TokenFile(tmp_path / "t")


def test_a_line_says_what_the_file_reads(tmp_path: Path) -> None:
    token = new_token()
    entry = TokenEntry(sha256=hash_of(token), team="t", role="admin", name='it\'s: #1 "x"', expires=LATER)
    write_private(tmp_path / "t", f"tokens:\n{entry.line()}\n".encode())
    assert TokenFile(tmp_path / "t").caller(token, 0.0).name == entry.name


def test_private_files_are_private_from_the_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert read_private(path, "x") == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_the_audit_record_survives_rotation_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, clock=lambda: 0.0)
    call = audit.began(WHO, "SubmitBuilds", "unix:", ())
    with path.open("ab") as file:
        file.write(b'{"time": "torn')
    audit.ended(call, WHO, "SubmitBuilds", ("builds/1",), "ok")
    lines = path.read_text().splitlines()
    assert json.loads(lines[0]) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "event": "began",
        "call": call,
        "team": "t",
        "name": "n",
        "role": "submitter",
        "proof": "token",
        "method": "SubmitBuilds",
        "peer": "unix:",
        "about": [],
    }
    assert json.loads(lines[2])["call"] == call
    assert json.loads(lines[2])["outcome"] == "ok"
    path.rename(tmp_path / "audit.jsonl.1")
    audit.refused(WHO, "CancelBuild", "unix:", ("builds/1",))
    assert json.loads(path.read_text())["event"] == "refused"
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_audit_record_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(FarmError) as caught:
        Audit(tmp_path / "none/audit.jsonl", clock=lambda: 0.0)
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_uploads_stay_their_teams_over_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.sqlite"
    journal = Journal(url)
    Ownership(journal.engine).add("a", "sha256:1", 1.0)
    Ownership(journal.engine).add("a", "sha256:1", 2.0)
    journal.close()
    journal = Journal(url)
    owners = Ownership(journal.engine)
    assert [owners.owns(*each) for each in (("a", "sha256:1"), ("b", "sha256:1"), ("a", "sha256:2"))] == [True, False, False]
    journal.close()
