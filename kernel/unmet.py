"""Why an option that was asked for is not in the configuration: asked, got, and the dependency that prevented it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kernel.kconfig import Option
from kernel.kconfig_language import Definition, Tree, holds, symbols


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """An option that did not stick: what was asked (and where), what the configuration says, and why."""

    symbol: str
    asked: str
    got: str
    where: str
    why: str


def explain(lost: Iterable[Option], got: Mapping[str, str], tree: Tree) -> tuple[Missed, ...]:
    """The reason for each lost option, from what the tree's Kconfig files say and the values that the configuration has."""
    return tuple(
        Missed(symbol=option.symbol, asked=option.value, got=got.get(option.symbol, "n"), where=option.where, why=_why(option, got, tree))
        for option in lost
    )


def undefined(options: Iterable[Option], tree: Tree) -> tuple[Option, ...]:
    """The options whose symbols no Kconfig file defines; none when not all files were read, so that it can't be known."""
    return tuple(option for option in options if tree.whole and option.symbol not in tree.definitions)


def _why(option: Option, got: Mapping[str, str], tree: Tree) -> str:
    definitions = tree.definitions.get(option.symbol)
    if not definitions:
        if not tree.whole:
            return "the tree's Kconfig files are too many or too large to find the reason"
        near = difflib.get_close_matches(option.symbol, tree.definitions, n=1, cutoff=0.75)
        return "this tree has no such symbol" + (f"; did you mean CONFIG_{near[0]}?" if near else "")
    selecting = [
        selector
        for selector, condition in tree.selectors.get(option.symbol, [])
        if got.get(selector, "n") != "n" and (not condition or holds(condition, got))
    ]
    if selecting and got.get(option.symbol, "n") != "n":
        return "selected by " + ", ".join(f"CONFIG_{each} (is {got[each]})" for each in selecting[:3])
    # A symbol may be defined in several places: the nearest to being met is the one to talk about.
    definition = min(definitions, key=lambda each: len(_unmet(each.depends, got)))
    if unmet := _unmet(definition.depends, got):
        return "it depends on " + " and on ".join(f"{text} (is {_state(text, got)})" for text in unmet)
    if chosen := _chosen(definition, got, tree, option.symbol):
        return f"it is one of a choice, and CONFIG_{chosen} is the one that is chosen; unset that"
    if not definition.prompts:
        return "it has no prompt: only other options set it"
    if hidden := [text for text in definition.prompts if text and not holds(text, got)]:
        return f"it can be set only if {hidden[0]} (is {_state(hidden[0], got)})"
    if option.value == "y" and got.get(option.symbol) == "m":
        return "something it depends on is a module, so it can only be one too"
    return "the tree's Kconfig does not take this value"


def _unmet(depends: Iterable[str], got: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(text for text in depends if not holds(text, got)))


def _chosen(definition: Definition, got: Mapping[str, str], tree: Tree, symbol: str) -> str:
    members = tree.choices[definition.choice]
    return next((member for member in members if member != symbol and got.get(member) == "y"), "")


def _state(expression: str, got: Mapping[str, str]) -> str:
    return ", ".join(f"{symbol}={got.get(symbol, 'n')}" for symbol in symbols(expression)) or "n"
