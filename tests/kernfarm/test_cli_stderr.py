"""What the program as a whole writes on stderr: our own lines, and nothing of the libraries below."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from kernfarm.settings import AccessSettings, TlsSettings
from tests.certificates import Authority
from tests.fakes.api import FakeFarm
from tests.served import serving

AUTHORITY, OTHER = Authority(), Authority("somebody else's authority")
PROGRAM = (sys.executable, "-c", "from kernfarm.cli.main import run; run()")


async def listed(home: Path, **environment: str) -> tuple[int | None, str]:
    """Exit code and stderr of `kernfarm list` at a farm whose authority is another than the one that is trusted."""
    pair = AUTHORITY.make("server")
    pair.write(home / "server.pem", home / "key.pem")
    (home / "other.pem").write_bytes(OTHER.pem)
    settings = AccessSettings(tls=TlsSettings(certificate=str(home / "server.pem"), key=str(home / "key.pem")))
    variables = {key: value for key, value in os.environ.items() if key != "GRPC_VERBOSITY"} | {"HOME": str(home)} | environment
    async with serving(home, FakeFarm(), listen="127.0.0.1:0", settings=settings) as served:
        words = (*PROGRAM, "list", "--farm", served.address, "--ca", str(home / "other.pem"))
        child = await asyncio.create_subprocess_exec(*words, env=variables, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        _, said = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode, said.decode()


async def test_a_farm_of_another_authority_is_told_in_our_own_words_only(tmp_path: Path) -> None:
    code, said = await listed(tmp_path)
    assert code == 2
    assert [line.partition(":")[0] for line in said.splitlines()] == ["error", "hint"], said


async def test_whoever_asks_for_grpcs_lines_gets_them(tmp_path: Path) -> None:
    _, said = await listed(tmp_path, GRPC_VERBOSITY="INFO")
    assert "ssl_transport_security" in said, said
