"""`kernfarm`: the border where failures become messages and exit codes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable

from kernel.errors import Code, FarmError
from kernfarm import credentials
from kernfarm.cli import arguments, commands, commands_token, doctor, embedded, publishing, verifying
from kernfarm.cli.output import Output
from kernfarm.client import FarmClient
from kernfarm.credentials import Places

Verb = Callable[[argparse.Namespace, FarmClient, Output], Awaitable[int]]


_REMOTE: dict[str, Verb] = {
    "build": commands.build,
    "list": commands.list_builds,
    "show": commands.show,
    "logs": commands.logs,
    "cancel": commands.cancel,
    "retry": commands.retry,
    "fetch": publishing.fetch,
    "boot": commands.boot_build,
    "workers": commands.workers,
}


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 ok, 1 our bug, 2 wrong usage or bad input, 3 the kernel does not build, 4 the farm is unavailable."""
    words = arguments.parser(arguments.default_state()).parse_args(_joined(sys.argv[1:] if argv is None else argv))
    logging.basicConfig(level=logging.DEBUG if words.debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    out = Output(json_mode=words.json)
    try:
        if words.verb == "up":
            plan = embedded.Plan(state=words.state.absolute(), workers=words.workers, jobs=words.jobs, listen=words.listen)
            return embedded.run(plan, lambda address: out.say(f"the farm serves on {address}; Ctrl-C stops it"))
        if words.verb == "verify":
            return verifying.run(words, out)
        if words.verb == "push":
            return publishing.run_push(words, out)
        if words.verb == "doctor":
            return _doctor(words, out)
        if words.verb == "token":
            return commands_token.new(words, out)
        return asyncio.run(_remote(words, out))
    except FarmError as error:
        if words.debug:
            raise
        out.problem(error.problem)
        return error.problem.handling.exit_code
    except KeyboardInterrupt:
        out.say("interrupted; a build that was submitted goes on (kernfarm list)")
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _joined(argv: list[str]) -> list[str]:
    """`--local-version -foo` as one word: the value nearly always begins with a dash, and argparse would take it for an option."""
    words = list(argv)
    for index, word in enumerate(words[:-1]):
        if word == "--local-version":
            words[index : index + 2] = [f"{word}={words[index + 1]}"]
            break
    return words


async def _remote(words: argparse.Namespace, out: Output) -> int:
    address = _address(words)
    flags = Places(ca=words.ca, token_file=words.token_file, cert=words.cert, key=words.key)
    shown = credentials.find(address, flags=flags, environment=os.environ, state=words.state)
    async with FarmClient(address, shown) as client:
        return await _REMOTE[words.verb](words, client, out)


def _address(words: argparse.Namespace) -> str:
    given = words.farm or os.environ.get("KERNFARM")
    if given:
        return str(given)
    path = words.state / "address"
    try:
        return str(path.read_text().strip())
    except OSError as error:
        raise FarmError(
            Code.UNAVAILABLE, "no farm is running on this machine", where=str(path), hint="kernfarm up, or --farm ADDRESS"
        ) from error


def _doctor(words: argparse.Namespace, out: Output) -> int:
    findings = doctor.examine(words.state)
    if out.json_mode:
        out.data(doctor.as_plain(findings))
    else:
        rows = [("ok" if each.ok else "MISSING", each.name, each.found, each.needed_for, each.mend) for each in findings]
        out.table(("", "what", "found", "needed for", "mend"), rows)
    return 0 if all(each.ok for each in findings) else 4


def run() -> None:
    """The console script."""
    sys.exit(main())
