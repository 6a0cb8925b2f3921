"""The configure step: base + fragments -> olddefconfig -> did everything asked for stick?"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from kernel import kconfig, kconfig_language, tables, unmet
from kernel.errors import Code, FarmError
from kernel.kconfig import Option
from kernel.steps import ConfigureResult, ConfigureTask
from worker import archive, trees
from worker.context import Context
from worker.kbuild import Place
from worker.trees import Checkout

_MAX_CONFIG = 4 << 20
_MOST_WARNINGS = 20


def run(context: Context, task: ConfigureTask) -> ConfigureResult:
    """Make the .config. Raises FarmError(BAD_CONFIG) naming each asked option that did not stick, with the reason."""
    out = archive.make_folder(context.scratch / "out", context.sandbox)
    config = out / ".config"
    asked = kconfig.merge([_fragment(context, blob.name, blob.digest) for blob in task.config.fragments])
    kconfig.refuse_unsafe(asked)
    flavour = tables.flavour(task.flavour)
    implied = kconfig.parse(flavour.fragment, f"flavour {flavour.name}") + _release(task.local_version + flavour.suffix)
    with context.checkout(task.tree) as source:
        place = Place(context=context, source=source, out=out, arch=task.arch, toolchain=task.toolchain)
        base: tuple[Option, ...] = ()
        if task.config.file is not None:
            base = kconfig.parse(_text(context, task.config.file.digest), task.config.file.name)
            kconfig.refuse_unsafe(base)
            text = kconfig.render(base)
        else:
            place.make(task.config.base, cached=False)
            text = trees.read_text(out, ".config", _MAX_CONFIG)
            config.unlink()
        below = tuple(option for blob in task.config.base_fragments for option in _fragment(context, blob.name, blob.digest))
        kconfig.refuse_unsafe(below)
        base, text = (*base, *below), text + kconfig.render(below)
        config.write_text(text + kconfig.render((*implied, *asked)))
        archive.give(config, context.sandbox)
        place.make("olddefconfig", cached=False)
        final = trees.read_text(out, ".config", _MAX_CONFIG)
        got = kconfig.values(final)
        kconfig.refuse_unsafe(kconfig.parse(final, ".config"))
        reasons = _Reasons(source, tables.arch(task.arch).source, got, context)
        reasons.refuse(asked)
        overridden = {option.symbol for option in (*implied, *asked)}
        dropped = reasons.tell(option for option in base if option.symbol not in overridden)
    return ConfigureResult(config=context.blobs.put_bytes(final.encode()), warnings=(*_warnings(got), *dropped))


def _fragment(context: Context, name: str, digest: str) -> tuple[Option, ...]:
    return kconfig.parse(_text(context, digest), name)


def _text(context: Context, digest: str) -> str:
    return context.blobs.get_bytes(digest, limit=_MAX_CONFIG).decode(errors="replace")


def _release(local_version: str) -> tuple[Option, ...]:
    """The kernel's name: ours, and nothing that depends on a git repository around the tree."""
    where = "local version"
    return (
        Option(symbol="LOCALVERSION", value=f'"{local_version}"', where=where),
        Option(symbol="LOCALVERSION_AUTO", value="n", where=where),
    )


class _Reasons:
    """What became of options, and why; the tree's Kconfig files are read only when something did not stick, or may be misspelt."""

    def __init__(self, source: Checkout, srcarch: str, got: dict[str, str], context: Context) -> None:
        self._source = source
        self._srcarch = srcarch
        self._got = got
        self._context = context

    def refuse(self, asked: Sequence[Option]) -> None:
        """Raises FarmError(BAD_CONFIG) when an option of a fragment did not stick, or one asked off is none at all; all of them are
        in the step's log."""
        missed = self._missed(asked, also=self._unknown(kconfig.absent(asked, self._got)))
        if not missed:
            return
        first = missed[0]
        said, hint = f" did not stick: asked {first.asked}, got {first.got};", "ask for what it depends on too, or leave it out"
        if first.asked == first.got:
            said, hint = "=n means nothing:", "correct the name, or leave it out"
        more = f" (and {len(missed) - 1} more, see the step's log)" if len(missed) > 1 else ""
        raise FarmError(Code.BAD_CONFIG, f"CONFIG_{first.symbol}{said} {first.why}{more}", where=first.where, hint=hint)

    def tell(self, base: Iterable[Option]) -> list[str]:
        """Options of a whole base config are often of another version: they are told, not refused."""
        missed = self._missed(base)
        told = [f"{each.where}: CONFIG_{each.symbol} did not stick: asked {each.asked}, got {each.got}; {each.why}" for each in missed]
        if len(told) > _MOST_WARNINGS:
            return [
                *told[:_MOST_WARNINGS],
                f"{len(told) - _MOST_WARNINGS} more options of the base config did not stick: see the step's log",
            ]
        return told

    def _missed(self, options: Iterable[Option], also: Sequence[Option] = ()) -> tuple[unmet.Missed, ...]:
        options = tuple(options)
        lost = {*kconfig.missed(options, self._got), *also}
        if not lost:
            return ()
        missed = unmet.explain((option for option in options if option in lost), self._got, self._tree)
        for each in missed:
            self._context.log(f"CONFIG_{each.symbol}: asked {each.asked} ({each.where}), got {each.got}: {each.why}\n".encode())
        return missed

    def _unknown(self, off: Sequence[Option]) -> tuple[Option, ...]:
        return unmet.undefined(off, self._tree) if off else ()

    @functools.cached_property
    def _tree(self) -> kconfig_language.Tree:
        return kconfig_language.read(lambda path: _kconfig(self._source, path), {"SRCARCH": self._srcarch})


def _kconfig(source: Checkout, path: str) -> str | None:
    try:
        return trees.read_text(source.path, path)
    except OSError:
        return None


def _warnings(got: dict[str, str]) -> tuple[str, ...]:
    found: list[str] = []
    if got.get("MODULE_SIG") == "y" and got.get("MODULE_SIG_KEY", '""') in ('""', '"certs/signing_key.pem"'):
        found.append("CONFIG_MODULE_SIG makes a new key for each build: its bytes can't be reproduced")
    if any(got.get(symbol) == "y" for symbol in ("LTO_CLANG_FULL", "LTO_CLANG_THIN")):
        found.append("LTO moves the work into the link step: splitting buys little")
    return tuple(found)
