"""A coordinator's services around any farm, on a Unix socket or with TLS, and callers of all teams and roles."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import sqlalchemy as sa

from coordinator import service
from coordinator.access.audit import Audit
from coordinator.access.gate import Gate
from coordinator.access.ownership import Ownership
from coordinator.api import FarmApi
from coordinator.schema import METADATA
from kernfarm import rpc
from kernfarm.client import FarmClient
from kernfarm.credentials import Credentials
from kernfarm.private import write_private
from kernfarm.settings import AccessSettings
from kernfarm.tokens import TokenEntry, hash_of, new_token


class Tokens:
    """A tokens file, and the tokens in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, TokenEntry] = {}
        self._write()

    def add(self, team: str, role: str, *, expires: str = "") -> str:
        token = new_token()
        self._entries[token] = TokenEntry(sha256=hash_of(token), team=team, role=role, name=f"{team}-{role}", expires=expires)
        self._write()
        return token

    def change(self, token: str, **values: str) -> None:
        self._entries[token] = replace(self._entries[token], **values)
        self._write()

    def revoke(self, token: str) -> None:
        del self._entries[token]
        self._write()

    def _write(self) -> None:
        lines = "".join(f"{entry.line()}\n" for entry in self._entries.values())
        write_private(self.path, f"tokens:\n{lines}".encode() if lines else b"tokens: []\n")


class Served:
    """What runs, and how to call it. `home` holds the audit record."""

    def __init__(self, home: Path, farm: FarmApi, settings: AccessSettings) -> None:
        self.home = home
        self.farm = farm
        self.settings = settings
        self.tokens = Tokens(home / "tokens.yaml")
        self.token = self.tokens.add("t", "submitter")
        self.ca: bytes | None = None
        self.server: grpc.aio.Server = None
        self.address = ""
        engine = sa.create_engine(f"sqlite:///{home}/owners.sqlite")
        METADATA.create_all(engine)
        self.ownership = Ownership(engine)

    async def start(self, listen: str, max_upload_bytes: int = 3 << 20, observe: rpc.Observe | None = None) -> None:
        settings = replace(self.settings, tokens_file=str(self.tokens.path))
        gate = Gate(settings, Audit(self.home / "audit.jsonl", clock=time.time))
        self.server, self.address = await service.serve(
            self.farm,
            listen=listen,
            access=settings,
            guard=gate,
            ownership=self.ownership,
            max_upload_bytes=max_upload_bytes,
            observe=observe,
        )

    def credentials(self, token: str | None = None) -> Credentials:
        return Credentials(ca=self.ca, token=self.token if token is None else token)

    def client(self, token: str | None = None) -> FarmClient:
        return FarmClient(self.address, self.credentials(token))

    def channel(self, token: str | None = None) -> Any:
        return grpc.aio.secure_channel(self.address, self.credentials(token).channel(self.address))

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.home / "audit.jsonl").read_text().splitlines()]


@asynccontextmanager
async def serving(
    home: Path,
    farm: FarmApi,
    *,
    listen: str = "",
    settings: AccessSettings | None = None,
    ca: bytes | None = None,
    observe: rpc.Observe | None = None,
) -> AsyncIterator[Served]:
    """Serve a farm; by default on a Unix socket in `home`. `settings` may bring TLS; then `ca` is whom clients trust."""
    served = Served(home, farm, settings or AccessSettings(recheck_seconds=0.2))
    served.ca = ca
    await served.start(listen or f"unix:{home}/s", observe=observe)
    try:
        yield served
    finally:
        await served.server.stop(None)
