"""The chart's address of the journal and the two roles of deploy/postgresql.sql, on a real PostgreSQL with TLS and passwords."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
import yaml

from coordinator.journal import Journal
from coordinator.journal_reader import JournalReader
from kernel.errors import Code, FarmError
from kernfarm.settings import CoordinatorSettings, SignerSettings, read
from kernfarm.verify import verify
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import LayoutSource
from tests import postgresql
from tests.certificates import Authority
from tests.deploy.rendering import ROOT, documents, named
from tests.fakes.built import FakeBuild
from tests.fakes.signed import fetch, new_key, signer

PASSWORDS = {"kernfarm": "the coordinator's", "kernfarm_signer": "the signer's"}
SCRIPT = ROOT / "deploy" / "postgresql.sql"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def psql(server: postgresql.Server, *words: str) -> str:
    argv = [str(server.programs / "psql"), f"--host={server.folder}", f"--port={server.port}", "--username=postgres", "--no-psqlrc"]
    done = subprocess.run([*argv, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgresql.Server]:
    with postgresql.server(tmp_path_factory.mktemp("pg") / "log", tls=authority.make("postgresql")) as found:
        psql(found, f"--file={SCRIPT}")
        for role, password in PASSWORDS.items():
            quoted = password.replace("'", "''")
            psql(found, f"--command=ALTER ROLE {role} PASSWORD '{quoted}'")
        yield found


@dataclass(slots=True)
class Farm:
    """The addresses that the chart writes into the programs' settings, and the environment that it gives them."""

    coordinator_url: str
    signer_url: str
    monkeypatch: pytest.MonkeyPatch

    def become(self, role: str) -> None:
        self.monkeypatch.setenv("PGUSER", role)
        self.monkeypatch.setenv("PGPASSWORD", PASSWORDS[role])


def urls(*sets: str) -> tuple[str, str]:
    """Of the coordinator and of the signer, with these values."""
    found = documents("external-postgres-s3", "journal.postgresql.host=127.0.0.1", *sets)
    texts = {name: named(found, "ConfigMap", f"-{name}")["data"][f"{name}.yaml"] for name in ("coordinator", "signer")}
    coordinator = read(CoordinatorSettings, yaml.safe_load(texts["coordinator"]), where="coordinator.yaml")
    return coordinator.journal_url, read(SignerSettings, yaml.safe_load(texts["signer"]), where="signer.yaml").journal_url


@pytest.fixture
def farm(server: postgresql.Server, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Farm:
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    # Where the Secret is mounted, there is a file of this test's here.
    found = [each.replace("/etc/kernfarm/postgresql", str(tmp_path)) for each in urls(f"journal.postgresql.port={server.port}")]
    return Farm(*found, monkeypatch)


@dataclass(slots=True)
class Build(FakeBuild):
    """A build whose journal is on the server."""

    url: str = ""

    @property
    def journal_url(self) -> str:
        return self.url


def test_the_signer_signs_by_what_a_role_that_only_reads_can_see(farm: Farm, tmp_path: Path) -> None:
    """The order is a new farm's: the signer is there first, and the tables come after its rights."""
    farm.become("kernfarm_signer")
    with pytest.raises(FarmError, match="journal") as caught:
        JournalReader(farm.signer_url).after(0)
    assert caught.value.problem.code is Code.UNAVAILABLE
    farm.become("kernfarm")
    build = Build(tmp_path / "build", url=farm.coordinator_url)
    journal = build.play()
    farm.become("kernfarm_signer")
    build.url = farm.signer_url
    key = new_key()
    signed = signer(build, key).sign(build.build_id)
    journal.close()
    report = verify(LayoutSource(fetch(build, signed, tmp_path / "image").folder), VerifyKey.parse(key.public_pem, "key"))
    assert report.ok, [each for each in report.checks if not each.ok]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM journal",
        "UPDATE journal SET payload = ''",
        "INSERT INTO journal (at, kind, payload) VALUES (0, '', '')",
        "DROP TABLE journal",
        "CREATE TABLE mine (a int)",
        "DELETE FROM blob_owners",
    ],
)
def test_the_signers_role_changes_nothing(farm: Farm, statement: str) -> None:
    farm.become("kernfarm")
    Journal(farm.coordinator_url).close()
    farm.become("kernfarm_signer")
    engine = sa.create_engine(farm.signer_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        # The reader's own setting and the role's are conveniences; what counts is what the role may do without them.
        connection.execute(sa.text("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"))
        connection.commit()
        with pytest.raises(sa.exc.ProgrammingError) as caught:
            connection.execute(sa.text(statement))
    assert isinstance(caught.value.orig, psycopg.errors.InsufficientPrivilege)


def test_another_servers_certificate_is_refused(farm: Farm, tmp_path: Path) -> None:
    """Who can get between the coordinator and its journal could make it believe anything."""
    (tmp_path / "ca.crt").write_bytes(Authority("another").pem)
    farm.become("kernfarm")
    with pytest.raises(FarmError, match="certificate verify failed") as caught:
        Journal(farm.coordinator_url)
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_without_an_authority_of_ones_own_the_public_ones_count(farm: Farm, server: postgresql.Server) -> None:
    farm.become("kernfarm")
    more = ("journal.postgresql.caSecret=", f"journal.postgresql.port={server.port}")
    for mode in ("verify-full", "verify-ca"):
        # None of the public authorities has signed this one; a file that is not there would be another message.
        with pytest.raises(FarmError, match="certificate verify failed"):
            Journal(urls(*more, f"journal.postgresql.sslMode={mode}")[0])
    Journal(urls(*more, "journal.postgresql.sslMode=require")[0]).close()


def test_a_wrong_password_is_said_without_it(farm: Farm) -> None:
    farm.become("kernfarm")
    farm.monkeypatch.setenv("PGPASSWORD", "guessed")
    with pytest.raises(FarmError, match="password authentication failed") as caught:
        Journal(farm.coordinator_url)
    assert "guessed" not in str(caught.value)


def test_the_script_can_run_again(server: postgresql.Server) -> None:
    """A farm that ran before it had a signer gets the role this way."""
    psql(server, f"--file={SCRIPT}")
