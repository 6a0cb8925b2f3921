"""A push to a registry that misbehaves on command, without long waits."""

from __future__ import annotations

from kernfarm.registry.content import Content
from kernfarm.registry.push import Options, Pushed, push
from kernfarm.registry.reference import Reference
from kernfarm.registry.repository import Repository
from kernfarm.registry.transport import Patience, Transport
from tests.fakes.registry_server import Answer, FakeRegistry, Fault

QUICK = Patience(attempts=3, first_seconds=0.01)
# What the `registry` fixture closes at its end.
OPEN: list[Transport] = []


def place(registry: FakeRegistry, address: str = "", patience: Patience = QUICK) -> Repository:
    OPEN.append(
        opened := Transport(Reference.parse(f"{address or registry.address}/team/kernel"), patience=patience, logins=lambda _: None)
    )
    return Repository(opened)


def send(registry: FakeRegistry, content: Content, *, address: str = "", patience: Patience = QUICK, chunk: int = 10_000) -> Pushed:
    return push(place(registry, address, patience), content, Options(chunk_bytes=chunk), lambda words: None)


def failing(method: str, part: str, answer: Answer) -> Fault:
    return lambda asked: answer if asked.method == method and part in asked.path else None


def wanted(content: Content) -> dict[str, str]:
    signatures = {each.attachment.tag: each.document.digest for each in content.attached if each.attachment.tag.endswith(".sig")}
    return {each.tag: each.document.digest for each in content.tags} | signatures
