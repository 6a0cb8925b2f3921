"""docs/reference/cli.md, from the argument parser."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

from kernel.errors import HANDLING, Code
from kernfarm.cli import arguments, main
from tools.reference import markdown

# What the parser has as a default depends on who runs it; the page has root's.
_STATE = Path("/var/lib/kernfarm")
_INTRO = f"""stdout is data, stderr is talk: without a terminal tables are lines of tab-separated cells, with `--json` stdout is JSON.
Colours and displays that redraw themselves are for terminals only; `NO_COLOR` turns colours off.

Farms are found by `--farm`, by `KERNFARM`, or as the embedded farm of this machine, whose folder is `{_STATE}` for root and `kernfarm` in
`$XDG_STATE_HOME` (`~/.local/state`) for others. `--ca`, `--token-file`, `--cert` and `--key` say whom to trust and what to show; each is
taken from the first of these that has it: the flag, the environment, `~/.config/kernfarm/farms.yaml`, the embedded farm's folder. See
[access](../howto/access.md#a-client).
"""
_INTERRUPTED = 130
_OF_FARMS = frozenset({"json", "farm", "state", "ca", "token_file", "cert", "key"})
_FARMS = "Options of every verb that talks to a farm"
_ANCHOR = _FARMS.lower().replace(" ", "-")


def parser() -> argparse.ArgumentParser:
    """The whole command line, the same for each user and environment."""
    environment = {name: value for name, value in os.environ.items() if name != "ORG"}
    with mock.patch.dict(os.environ, environment, clear=True):
        return arguments.parser(_STATE)


def verbs(top: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """(words, parser, what it does) of each verb that can be called, those below others included."""
    for action in top._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        says = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, verb in action.choices.items():
            below = list(verbs(verb))
            yield from [(f"{name} {words}", inner, text) for words, inner, text in below] or [(name, verb, says[name])]


def options(verb: argparse.ArgumentParser) -> frozenset[str]:
    """The flags of one parser, in all spellings."""
    return frozenset(flag for action in verb._actions for flag in action.option_strings)


def page() -> str:
    """The page, the same each time."""
    top = parser()
    found = list(verbs(top))
    rows = [(f"[`kernfarm {words}`](#kernfarm-{words.replace(' ', '-')})", says) for words, _, says in found]
    parts = [_INTRO, "## Verbs\n", markdown.table(("command", "does"), rows), "Before the verb:\n", _flags(top._actions)]
    shared = next(verb for _, verb, _ in found if _talks(verb))
    parts += ["## Exit codes\n", _exit_codes(), f"## {_FARMS}\n", _flags([each for each in shared._actions if each.dest in _OF_FARMS])]
    for words, verb, says in found:
        parts += [f"## kernfarm {words}\n", f"{says[:1].upper()}{says[1:]}.\n", markdown.fence(_usage(words, verb))]
        own = [each for each in verb._actions if not _talks(verb) or each.dest not in _OF_FARMS]
        if len(own) > 1:  # --help is one of them
            parts.append(_flags(own))
        if _talks(verb):
            parts.append(f"And the [options of every verb that talks to a farm](#{_ANCHOR}).\n")
    return markdown.page("Command line", "tools/reference/cli.py", *parts)


def _talks(verb: argparse.ArgumentParser) -> bool:
    return {action.dest for action in verb._actions} >= _OF_FARMS


def _usage(words: str, verb: argparse.ArgumentParser) -> str:
    """One line: what has to be given; options that may be left out are in the table."""
    needed = [_words(action) for action in verb._actions if action.required and action.option_strings]
    return " ".join((f"kernfarm {words}", "[OPTION]...", *needed, *(_place(action) for action in _positional(verb._actions))))


def _positional(actions: Sequence[argparse.Action]) -> list[argparse.Action]:
    return [action for action in actions if not action.option_strings and not isinstance(action, argparse._SubParsersAction)]


def _place(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    return {"?": f"[{name}]", "+": f"{name}...", "*": f"[{name}]..."}.get(str(action.nargs), name)


def _words(action: argparse.Action) -> str:
    """`-f, --follow`, or `--to DIR`."""
    flags = ", ".join(action.option_strings)
    if action.nargs == 0:
        return flags
    value = action.metavar or ("|".join(str(choice) for choice in action.choices) if action.choices else action.dest.upper())
    return f"{flags} {value}"


def _flags(actions: Sequence[argparse.Action]) -> str:
    rows = [(markdown.code(_place(action)), action.help or "") for action in _positional(actions)]
    rows += [(markdown.code(_words(action)), _help(action)) for action in actions if action.option_strings and action.dest != "help"]
    return markdown.table(("word", "meaning"), rows)


def _help(action: argparse.Action) -> str:
    text = (action.help or "") % {"default": action.default}
    shown = action.default is not None and action.default is not False and action.default != [] and action.nargs != 0
    if "default:" in text or not shown:
        return text
    return f"{text} (default: {action.default})".strip()


def _exit_codes() -> str:
    """Their meanings are the words of main's own docstring."""
    meanings = re.findall(r"(\d) ([^,.]+)", main.main.__doc__ or "")
    rows = []
    for number, meaning in meanings:
        codes = [f"`{code}`" for code in Code if HANDLING[code].exit_code == int(number)]
        rows.append((number, meaning, ", ".join(codes)))
    rows.append((str(_INTERRUPTED), "Ctrl-C; a build that was submitted goes on", ""))
    return markdown.table(("exit code", "meaning", "[codes](errors.md)"), rows)
