"""Config fragments: reading, merging, and what became of what was asked (Documentation/kbuild/kconfig.rst, kconfig-language.rst)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kernel.errors import Code, FarmError

_SET = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(.*)")
_UNSET = re.compile(r"# CONFIG_([A-Za-z0-9_]+) is not set")
_STRING = re.compile(r'"(?:[^"\\\n]|\\["\\])*"')
_NUMBER = re.compile(r"-?[0-9]+|0[xX][0-9a-fA-F]+")
# Symbols that say what the compiler is: every compiler update changes them, nobody asks for them.
_TOOLCHAIN = re.compile(
    r"(CC|GCC|CLANG|LD|LLD|AS|PAHOLE|RUSTC|BINDGEN)_VERSION(_TEXT)?|CC_IS_\w+|LD_IS_\w+|AS_IS_\w+|CC_HAS_\w+|CC_CAN_\w+|AS_HAS_\w+"
)
# String symbols whose value becomes a path that the build reads: outside the tree they would read the worker.
_PATHS = frozenset(
    {
        "INITRAMFS_SOURCE",
        "MODULE_SIG_KEY",
        "SYSTEM_TRUSTED_KEYS",
        "SYSTEM_REVOCATION_KEYS",
        "SYSTEM_BLACKLIST_HASH_LIST",
        "EXTRA_FIRMWARE_DIR",
        "EXTRA_FIRMWARE",
        "UNUSED_KSYMS_WHITELIST",
        "CFG80211_EXTRA_REGDB_KEYDIR",
        "BUILTIN_DTB_SOURCE",
        "BUILTIN_DTB_NAME",
    }
)
# Paths that the running kernel uses, not the build.
_AT_RUN_TIME = frozenset(
    {
        "DEFAULT_INIT",
        "MODPROBE_PATH",
        "UEVENT_HELPER_PATH",
        "STATIC_USERMODEHELPER_PATH",
        "IMA_X509_PATH",
        "EVM_X509_PATH",
    }
)
# A path goes through make and a shell without quotes: what either would take away or act on (quotes, backslashes, globs, `$`)
# could make another path of it than the one that is checked here, so only characters that both leave alone may stand in it.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+,@ :=-]*")
# `key=PATH`, `file:PATH`, `@PATH` are paths too to the tools that get them.
_BETWEEN_PATHS = re.compile(r"[ :=,@]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One asked value: `n` for "is not set", strings with their quotes, as they stand in the file; `where` is file:line."""

    symbol: str
    value: str
    where: str


def parse(text: str, name: str) -> tuple[Option, ...]:
    """The options of a fragment or a whole .config. Raises FarmError(BAD_CONFIG) naming file and line."""
    options: list[Option] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        where = f"{name}:{number}"
        if match := _UNSET.fullmatch(line):
            options.append(Option(symbol=match[1], value="n", where=where))
        elif not line or line.startswith("#"):
            continue
        elif match := _SET.fullmatch(line):
            options.append(Option(symbol=match[1], value=_value(match[2], match[1], where), where=where))
        else:
            hint = "CONFIG_NAME=y, =m, =n, a number, a quoted string, or `# CONFIG_NAME is not set`"
            raise FarmError(Code.BAD_CONFIG, f"not a configuration line: {line[:80]!r}", where=where, hint=hint)
    return tuple(options)


def _value(text: str, symbol: str, where: str) -> str:
    value = text.strip()
    if value in ("y", "m", "n") or _NUMBER.fullmatch(value) or _STRING.fullmatch(value):
        return value
    raise FarmError(Code.BAD_CONFIG, f"CONFIG_{symbol} has no valid value: {value[:80]!r}", where=where, hint="strings need quotes")


def merge(fragments: Sequence[Sequence[Option]]) -> tuple[Option, ...]:
    """All options of a request's fragments. Raises FarmError(BAD_CONFIG) when two of them contradict each other."""
    asked: dict[str, Option] = {}
    for option in (option for fragment in fragments for option in fragment):
        earlier = asked.get(option.symbol)
        if earlier is not None and earlier.value != option.value:
            raise FarmError(
                Code.BAD_CONFIG,
                f"CONFIG_{option.symbol}={option.value} contradicts CONFIG_{option.symbol}={earlier.value} at {earlier.where}",
                where=option.where,
                hint="keep one of the two lines",
            )
        asked[option.symbol] = option
    return tuple(asked.values())


def refuse_unsafe(options: Iterable[Option]) -> None:
    """Raises FarmError(UNSAFE_CONFIG) for a value that would make the build read outside the tree, or reach a shell."""
    for option in options:
        if not option.value.startswith('"'):
            continue
        text = option.value[1:-1]
        is_path = option.symbol in _PATHS or option.symbol.endswith(("_PATH", "_DIR", "_FILE", "_SOURCE", "_KEYDIR"))
        if is_path and option.symbol not in _AT_RUN_TIME and _outside(text):
            raise _unsafe(option, "points outside the source tree", "give a path inside the tree; a patch can bring the file")
        if is_path and _PLAIN_PATH.fullmatch(text) is None:
            raise _unsafe(option, "holds characters that a shell or make would act on", "use a plain path: letters, digits and ._/+,@:=-")
        if "$(" in text or "`" in text:
            raise _unsafe(option, "holds a command substitution", "write the value itself")


def _outside(text: str) -> bool:
    if any(word.lower().startswith("pkcs11:") for word in text.split()):
        return True
    return any(path.startswith(("/", "~")) or ".." in path.split("/") for path in _BETWEEN_PATHS.split(text))


def _unsafe(option: Option, why: str, hint: str) -> FarmError:
    return FarmError(Code.UNSAFE_CONFIG, f"CONFIG_{option.symbol}={option.value} {why}", where=option.where, hint=hint)


def render(options: Iterable[Option]) -> str:
    """Options as lines of a .config; later lines win over earlier ones when kconfig reads them."""
    return "".join(
        f"# CONFIG_{option.symbol} is not set\n" if option.value == "n" else f"CONFIG_{option.symbol}={option.value}\n"
        for option in options
    )


def values(config: str) -> dict[str, str]:
    """Symbol to value of a finished .config; symbols that are off are absent or `n`."""
    return {option.symbol: option.value for option in parse(config, ".config")}


def missed(asked: Iterable[Option], got: Mapping[str, str]) -> tuple[Option, ...]:
    """The asked options that the configuration does not have, in the order they were asked; toolchain symbols aside."""
    return tuple(option for option in asked if not _TOOLCHAIN.fullmatch(option.symbol) and got.get(option.symbol, "n") != option.value)


def absent(asked: Iterable[Option], got: Mapping[str, str]) -> tuple[Option, ...]:
    """The options asked off that the configuration does not even mention: hidden ones, or misspelt; toolchain symbols aside."""
    return tuple(option for option in asked if option.value == "n" and option.symbol not in got and not _TOOLCHAIN.fullmatch(option.symbol))
