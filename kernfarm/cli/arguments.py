"""The command line of `kernfarm`: its verbs and their words."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernfarm.cli import publishing

if TYPE_CHECKING:  # argparse has no public name for what add_subparsers returns
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def default_state() -> Path:
    """Where an embedded farm keeps everything. As root a place that build steps' own user can reach, which /root is not."""
    if os.geteuid() == 0:
        return Path("/var/lib/kernfarm")
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "kernfarm"


def parser(state: Path) -> argparse.ArgumentParser:
    """The whole command line. `state`: the folder of an embedded farm when none is named."""
    top = argparse.ArgumentParser(prog="kernfarm", description="A distributed build farm for Linux kernels.")
    top.add_argument("--debug", action="store_true", help="show tracebacks and log lines")
    verbs: Verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Verb)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="data on stdout as JSON")
    remote = argparse.ArgumentParser(add_help=False, parents=[common])
    _add_remote(remote, state)
    # In the order in which the help shows them.
    _add_up(verbs.add_parser("up", parents=[common], help="run an embedded farm on this machine; Ctrl-C stops it"), state)
    _add_build(verbs.add_parser("build", parents=[remote], help="submit a request and follow it to the end"))
    _add_builds(verbs, remote)
    publishing.add_fetch(verbs.add_parser("fetch", parents=[remote], help="images to a folder, a registry, a Docker engine"))
    publishing.add_push(verbs.add_parser("push", parents=[common], help="OCI layouts that were fetched, to a registry; asks no farm"))
    _add_boot(_one(verbs, remote, "boot", "boot it in QEMU, to a shell"))
    says = "check an image's signatures, digests, provenance and SBOM; asks no farm"
    _add_verify(verbs.add_parser("verify", parents=[common], help=says))
    verbs.add_parser("workers", parents=[remote], help="who is there, and what they can do")
    _add_token(verbs.add_parser("token", help="bearer tokens of a farm"), common)
    check = verbs.add_parser("doctor", parents=[common], help="what this machine lacks, and the command that mends it")
    check.add_argument("--state", type=Path, default=state, help="where an embedded farm would keep everything")
    return top


def _add_remote(parser: argparse.ArgumentParser, state: Path) -> None:
    """The words of every verb that talks to a farm."""
    parser.add_argument(
        "--farm", metavar="ADDRESS", help="host:port, [v6]:port or unix:///PATH; default: $KERNFARM, or the embedded farm of this machine"
    )
    parser.add_argument("--state", type=Path, default=state, help="folder of the embedded farm (default: %(default)s)")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="authority of the farm's certificate; default: $KERNFARM_CA, or the system's"
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="your token; default: $KERNFARM_TOKEN or $KERNFARM_TOKEN_FILE")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="your certificate, for farms that ask for one; default: $KERNFARM_CERT")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its private key; default: $KERNFARM_KEY")


def _add_up(parser: argparse.ArgumentParser, state: Path) -> None:
    parser.add_argument("--workers", type=_positive, default=2, metavar="N", help="worker nodes (default: %(default)s)")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="make -j of each worker (default: %(default)s)")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="ADDRESS", help="default: a free port on loopback")
    parser.add_argument("--state", type=Path, default=state, help="where everything is kept (default: %(default)s)")


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="kernfarm.yaml", help="the request; flags win over it")
    parser.add_argument("--source", metavar="KIND:REF", help="kernel.org:VERSION, debian:6.1[=VERSION], git:URL@REF, file:TARBALL")
    parser.add_argument("--arch", action=_Append, metavar="ARCH", help="x86_64, arm64; a build for each (default: x86_64)")
    parser.add_argument("--flavour", dest="flavours", action=_Append, metavar="NAME", help="plain, dbg; a build for each (default: plain)")
    parser.add_argument("--base", metavar="CONFIG", help="defconfig, tinyconfig, allnoconfig, series, or a complete .config")
    parser.add_argument("--series", metavar="NAME", help="6.1.x, 6.12.x; default: the source's")
    parser.add_argument(
        "--config", dest="fragments", action=_Append, type=Path, metavar="FRAGMENT", help="config fragment on top; may be repeated"
    )
    parser.add_argument("--patches", action=_Append, type=Path, metavar="PATH", help="patch file or folder; may be repeated")
    parser.add_argument("--toolchain", metavar="NAME", help="gcc-12, clang-14 (default: gcc-12)")
    parser.add_argument("--output", dest="outputs", action=_Append, metavar="NAME", help="what to make (default: kernel)")
    parser.add_argument("--local-version", metavar="SUFFIX", help="behind the kernel's version (default: -linuxkit)")
    parser.add_argument(
        "--no-boot", dest="boot", action="store_const", const=False, help="no boot test: for configurations that can't boot in QEMU"
    )
    parser.add_argument("--clean", action="store_true", help="do every step anew; only the compile cache is used")
    parser.add_argument("--detach", action="store_true", help="print the build's id and return")
    parser.add_argument("--request-id", metavar="ID", help="idempotency key: the same id gives the same builds")


def _add_builds(verbs: Verbs, remote: argparse.ArgumentParser) -> None:
    """The verbs for builds that there are."""
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


def _add_boot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="no shell: boot, load --module, power off")
    parser.add_argument("--module", action="append", metavar="NAME", help="module to load; may be repeated")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="with --check: until it has powered off")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "image", metavar="IMAGE", help="folder with an OCI layout, as fetch writes it, or REGISTRY/REPOSITORY:TAG (or @DIGEST)"
    )
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="the farm's cosign.pub")
    parser.add_argument("--plain-http", action="store_true", help="the registry has no TLS (one on this machine needs no flag)")
    parser.add_argument("--booted", action="store_true", help="the provenance has to say that the farm has booted the image")
    parser.add_argument("--builder", default="", metavar="ID", help="the builder that the provenance has to name")


def _add_token(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="token_verb", required=True, metavar="VERB")
    new = verbs.add_parser("new", parents=[common], help="make a token, and the line for the farm's tokens file")
    new.add_argument("--team", required=True, help="whose builds and uploads its user sees")
    new.add_argument("--role", required=True, choices=("reader", "submitter", "admin"), help="each may do what those before it may")
    new.add_argument("--name", help="who will use it, for the audit record; default: the team and the role")
    new.add_argument("--days", type=_positive, metavar="N", help="how long it is good for; default: until it is revoked")


def _one(verbs: Verbs, remote: argparse.ArgumentParser, name: str, says: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, parents=[remote], help=says)
    verb.add_argument("build", metavar="BUILD", help="its id, as build and list print it")
    return verb


class _Verb(argparse.ArgumentParser):
    """Refuses by itself what it does not know. argparse would hand that up to the program's parser, whose usage names verbs only."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return words, unknown


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
