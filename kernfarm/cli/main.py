"""`kernfarm`: the argument parser and the border where failures become messages and exit codes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from kernel.errors import Code, FarmError
from kernfarm import credentials
from kernfarm.cli import commands, commands_token, doctor, embedded, publishing, verifying
from kernfarm.cli.output import Output
from kernfarm.client import FarmClient
from kernfarm.credentials import Places

Verb = Callable[[argparse.Namespace, FarmClient, Output], Awaitable[int]]


def default_state() -> Path:
    """Where an embedded farm keeps everything. As root a place that build steps' own user can reach, which /root is not."""
    if os.geteuid() == 0:
        return Path("/var/lib/kernfarm")
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "kernfarm"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="kernfarm", description="A distributed build farm for Linux kernels.")
    top.add_argument("--debug", action="store_true", help="show tracebacks and log lines")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="data on stdout as JSON")
    remote = argparse.ArgumentParser(add_help=False, parents=[common])
    remote.add_argument(
        "--farm", metavar="ADDRESS", help="host:port, [v6]:port or unix:///PATH; default: $KERNFARM, or the embedded farm of this machine"
    )
    remote.add_argument("--state", type=Path, default=default_state(), help="folder of the embedded farm (default: %(default)s)")
    remote.add_argument(
        "--ca", type=Path, metavar="FILE", help="authority of the farm's certificate; default: $KERNFARM_CA, or the system's"
    )
    remote.add_argument("--token-file", type=Path, metavar="FILE", help="your token; default: $KERNFARM_TOKEN or $KERNFARM_TOKEN_FILE")
    remote.add_argument("--cert", type=Path, metavar="FILE", help="your certificate, for farms that ask for one; default: $KERNFARM_CERT")
    remote.add_argument("--key", type=Path, metavar="FILE", help="its private key; default: $KERNFARM_KEY")

    up = verbs.add_parser("up", parents=[common], help="run an embedded farm on this machine; Ctrl-C stops it")
    up.add_argument("--workers", type=_positive, default=2, metavar="N", help="worker nodes (default: %(default)s)")
    up.add_argument("--jobs", type=_positive, default=1, metavar="N", help="make -j of each worker (default: %(default)s)")
    up.add_argument("--listen", default="127.0.0.1:0", metavar="ADDRESS", help="default: a free port on loopback")
    up.add_argument("--state", type=Path, default=default_state(), help="where everything is kept (default: %(default)s)")

    build = verbs.add_parser("build", parents=[remote], help="submit a request and follow it to the end")
    build.add_argument("file", nargs="?", type=Path, metavar="kernfarm.yaml", help="the request; flags win over it")
    build.add_argument("--source", metavar="KIND:REF", help="kernel.org:VERSION, debian:6.1[=VERSION], git:URL@REF, file:TARBALL")
    build.add_argument("--arch", action=_Append, metavar="ARCH", help="x86_64, arm64; a build for each (default: x86_64)")
    build.add_argument("--flavour", dest="flavours", action=_Append, metavar="NAME", help="plain, dbg; a build for each (default: plain)")
    build.add_argument("--base", metavar="CONFIG", help="defconfig, tinyconfig, allnoconfig, series, or a complete .config")
    build.add_argument("--series", metavar="NAME", help="6.1.x, 6.12.x; default: the source's")
    build.add_argument(
        "--config", dest="fragments", action=_Append, type=Path, metavar="FRAGMENT", help="config fragment on top; may be repeated"
    )
    build.add_argument("--patches", action=_Append, type=Path, metavar="PATH", help="patch file or folder; may be repeated")
    build.add_argument("--toolchain", metavar="NAME", help="gcc-12, clang-14 (default: gcc-12)")
    build.add_argument("--output", dest="outputs", action=_Append, metavar="NAME", help="what to make (default: kernel)")
    build.add_argument("--local-version", metavar="SUFFIX", help="behind the kernel's version (default: -linuxkit)")
    build.add_argument(
        "--no-boot", dest="boot", action="store_const", const=False, help="no boot test: for configurations that can't boot in QEMU"
    )
    build.add_argument("--clean", action="store_true", help="do every step anew; only the compile cache is used")
    build.add_argument("--detach", action="store_true", help="print the build's id and return")
    build.add_argument("--request-id", metavar="ID", help="idempotency key: the same id gives the same builds")

    listing = verbs.add_parser("list", parents=[remote], help="builds, newest first")
    listing.add_argument("--limit", type=_positive, default=50, metavar="N", help="builds at most (default: %(default)s)")
    show = _one(verbs, remote, "show", "a build and its steps: why it waits, what failed")
    show.add_argument("--result", action="store_true", help="the whole result record, as JSON")
    logs = _one(verbs, remote, "logs", "output of a build's steps")
    logs.add_argument("-f", "--follow", action="store_true", help="show what comes, until the build has ended")
    logs.add_argument("--step", metavar="STEP", help="one step; default: all, in order")
    logs.add_argument("--offset", type=int, default=0, metavar="BYTES", help="leave out so much of each step's output")
    _one(verbs, remote, "cancel", "stop a build")
    retry = _one(verbs, remote, "retry", "go on with a failed or cancelled build")
    retry.add_argument("--detach", action="store_true", help="do not follow it")
    publishing.add_fetch(verbs.add_parser("fetch", parents=[remote], help="images to a folder, a registry, a Docker engine"))
    publishing.add_push(verbs.add_parser("push", parents=[common], help="OCI layouts that were fetched, to a registry; asks no farm"))
    boot = _one(verbs, remote, "boot", "boot it in QEMU, to a shell")
    boot.add_argument("--check", action="store_true", help="no shell: boot, load --module, power off")
    boot.add_argument("--module", action="append", metavar="NAME", help="module to load; may be repeated")
    boot.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="with --check: until it has powered off")
    verify = verbs.add_parser("verify", parents=[common], help="check an image's signatures, digests, provenance and SBOM; asks no farm")
    verify.add_argument(
        "image", metavar="IMAGE", help="folder with an OCI layout, as fetch writes it, or REGISTRY/REPOSITORY:TAG (or @DIGEST)"
    )
    verify.add_argument("--key", type=Path, required=True, metavar="FILE", help="the farm's cosign.pub")
    verify.add_argument("--plain-http", action="store_true", help="the registry has no TLS (one on this machine needs no flag)")
    verify.add_argument("--booted", action="store_true", help="the provenance has to say that the farm has booted the image")
    verify.add_argument("--builder", default="", metavar="ID", help="the builder that the provenance has to name")
    verbs.add_parser("workers", parents=[remote], help="who is there, and what they can do")
    token = verbs.add_parser("token", help="bearer tokens of a farm").add_subparsers(dest="token_verb", required=True, metavar="VERB")
    new = token.add_parser("new", parents=[common], help="make a token, and the line for the farm's tokens file")
    new.add_argument("--team", required=True, help="whose builds and uploads its user sees")
    new.add_argument("--role", required=True, choices=("reader", "submitter", "admin"), help="each may do what those before it may")
    new.add_argument("--name", help="who will use it, for the audit record; default: the team and the role")
    new.add_argument("--days", type=_positive, metavar="N", help="how long it is good for; default: until it is revoked")
    check = verbs.add_parser("doctor", parents=[common], help="what this machine lacks, and the command that mends it")
    check.add_argument("--state", type=Path, default=default_state(), help="where an embedded farm would keep everything")
    return top


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
    words = parser().parse_args(_joined(sys.argv[1:] if argv is None else argv))
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


def _one(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], remote: argparse.ArgumentParser, name: str, says: str
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, parents=[remote], help=says)
    verb.add_argument("build", metavar="BUILD", help="its id, as build and list print it")
    return verb


class _Append(argparse.Action):
    """Collects a repeated option, or comma-separated words, into a tuple; None when it was never given."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option_string: str | None = None) -> None:
        given = tuple(values.split(",")) if isinstance(values, str) else (values,)
        setattr(namespace, self.dest, (getattr(namespace, self.dest) or ()) + given)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def run() -> None:
    """The console script."""
    sys.exit(main())
