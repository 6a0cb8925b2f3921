"""The configure step: base + fragments -> olddefconfig -> did everything asked for stick?"""

from __future__ import annotations

from kernel import kconfig, tables
from kernel.errors import Code, FarmError
from kernel.kconfig import Option
from kernel.steps import ConfigureResult, ConfigureTask
from worker import archive, trees
from worker.context import Context
from worker.kbuild import Place
from worker.trees import Checkout

_MAX_CONFIG = 4 << 20


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
        if task.config.file is not None:
            base = kconfig.parse(_text(context, task.config.file.digest), task.config.file.name)
            kconfig.refuse_unsafe(base)
            text = kconfig.render(base)
        else:
            place.make(task.config.base, cached=False)
            text = trees.read_text(out, ".config", _MAX_CONFIG)
            config.unlink()
        config.write_text(text + kconfig.render((*implied, *asked)))
        archive.give(config, context.sandbox)
        place.make("olddefconfig", cached=False)
        final = trees.read_text(out, ".config", _MAX_CONFIG)
        got = kconfig.values(final)
        kconfig.refuse_unsafe(kconfig.parse(final, ".config"))
        _check(asked, got, source, context)
    return ConfigureResult(config=context.blobs.put_bytes(final.encode()), warnings=_warnings(got))


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


def _check(asked: tuple[Option, ...], got: dict[str, str], source: Checkout, context: Context) -> None:
    lost = kconfig.missed(asked, got)
    if not lost:
        return
    paths = [path for path, _, _ in archive.walk(source.path) if path.rpartition("/")[2].startswith("Kconfig")]
    defined = kconfig.definitions(trees.read_text(source.path, path) for path in sorted(paths))
    reasons = kconfig.explain(lost, got, defined)
    for missed in reasons:
        context.log(f"CONFIG_{missed.symbol}: asked {missed.asked} ({missed.where}), got {missed.got}: {missed.why}\n".encode())
    first = reasons[0]
    more = f" (and {len(reasons) - 1} more, see the step's log)" if len(reasons) > 1 else ""
    raise FarmError(
        Code.BAD_CONFIG,
        f"CONFIG_{first.symbol} did not stick: asked {first.asked}, got {first.got}; {first.why}{more}",
        where=first.where,
        hint="ask for what it depends on too, or leave it out",
    )


def _warnings(got: dict[str, str]) -> tuple[str, ...]:
    found: list[str] = []
    if got.get("MODULE_SIG") == "y" and got.get("MODULE_SIG_KEY", '""') in ('""', '"certs/signing_key.pem"'):
        found.append("CONFIG_MODULE_SIG makes a new key for each build: its bytes can't be reproduced")
    if any(got.get(symbol) == "y" for symbol in ("LTO_CLANG_FULL", "LTO_CLANG_THIN")):
        found.append("LTO moves the work into the link step: splitting buys little")
    return tuple(found)
