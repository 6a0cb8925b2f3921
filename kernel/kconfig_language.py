"""Kconfig files as far as it takes to say why an option did not stick (Documentation/kbuild/kconfig-language.rst).

Read as text, never evaluated by kconfig: a tree is hostile, and Kconfig can run shell. What can't be known without running it
(`$(cc-option,...)`) counts as met, so that no wrong reason is given.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Load = Callable[[str], str | None]

_NAME = r"[A-Za-z0-9_]+"
_WORD = re.compile(r"\s*([a-z_]+)\b[ \t]*(.*)")
_SYMBOL = re.compile(rf"(?:menu)?config\s+({_NAME})\s*(?:#.*)?$")
_SOURCE = re.compile(r'\s*o?source\s+"([^"]+)"')
_TYPE = re.compile(r'(?:bool|tristate|string|int|hex|prompt)(?:\s+("(?:[^"\\]|\\.)*"|\'[^\']*\')(?:\s+if\s+(.+))?)?\s*$')
_SELECT = re.compile(rf"select\s+({_NAME})(?:\s+if\s+(.+))?\s*$")
_TOKEN = re.compile(rf'\s*(&&|\|\||!=|<=|>=|[=<>!()]|"(?:[^"\\]|\\.)*"|\'[^\']*\'|\$\([^()]*(?:\([^()]*\)[^()]*)*\)|{_NAME})')
# Linux has about 1,600 Kconfig files, nested 6 deep. A hostile tree may name files again and again.
_DEEPEST = 50
_MOST_FILES = 20_000
_MOST_TEXT = 64 << 20  # Linux has 5 MiB
_MOST_BLOCKS = 200
_LONGEST_EXPRESSION = 10_000


@dataclass(slots=True, kw_only=True)
class Definition:
    """One place where a symbol is defined. `depends`: expressions that must all hold, its own first, then those of the blocks around
    it; `prompts`: the conditions under which a person may set it (an empty text for none), no entry when it has no prompt."""

    depends: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    choice: int = 0


@dataclass(slots=True, kw_only=True)
class Tree:
    """What a tree's Kconfig files define: definitions by symbol, who selects a symbol (and when), members of each choice.

    `whole`: no file was left out because there are too many of them, or too large ones."""

    definitions: dict[str, list[Definition]] = field(default_factory=lambda: defaultdict(list))
    selectors: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    choices: list[list[str]] = field(default_factory=lambda: [[]])
    whole: bool = True


@dataclass(slots=True)
class _Block:
    """An open menu, if or choice: what everything in it depends on."""

    kind: str
    conditions: list[str]
    choice: int = 0


def read(load: Load, variables: Mapping[str, str], top: str = "Kconfig") -> Tree:
    """Follow `source` lines from the top. `load` gives a file's text, None for one that is not there; `variables` such as SRCARCH."""
    tree = Tree()
    _Reader(load, variables, tree).file(top, [], 0)
    return tree


class _Reader:
    def __init__(self, load: Load, variables: Mapping[str, str], tree: Tree) -> None:
        self._load = load
        self._variables = variables
        self._tree = tree
        self._symbol = ""
        self._current: Definition | None = None
        self._own = 0
        self._files = 0
        self._characters = 0

    def file(self, path: str, blocks: list[_Block], depth: int) -> None:
        """A file inherits the blocks around the `source` that named it; what it leaves open ends with it."""
        self._files += 1
        if depth > _DEEPEST or self._files > _MOST_FILES or self._characters > _MOST_TEXT:
            self._tree.whole = False
            return
        text = self._load(path)
        if text is None:
            return
        self._characters += len(text)
        if self._characters > _MOST_TEXT:
            self._tree.whole = False
            return
        blocks = list(blocks)
        for line in _statements(text):
            sourced = _SOURCE.match(line)
            if sourced is not None:
                self._current = None
                self.file(self._expand(sourced[1]), blocks, depth + 1)
                self._current = None
            else:
                self._line(line, blocks)

    def _expand(self, text: str) -> str:
        return re.sub(rf"\$\(({_NAME})\)", lambda match: self._variables.get(match[1], match[0]), text)

    def _line(self, line: str, blocks: list[_Block]) -> None:
        match = _WORD.match(line)
        word, rest = (match[1], " ".join(match[2].split())) if match else ("", "")
        if symbol := _SYMBOL.match(line.strip()):
            self._define(symbol[1], blocks)
        elif word in ("menu", "choice", "if"):
            self._current = None
            if len(blocks) >= _MOST_BLOCKS:
                # Each definition repeats the conditions around it: that many would fill the memory.
                self._tree.whole = False
                return
            blocks.append(_Block(word, [rest] if word == "if" else []))
            if word == "choice":
                self._tree.choices.append([])
                blocks[-1].choice = len(self._tree.choices) - 1
        elif word in ("endmenu", "endchoice", "endif"):
            self._current = None
            if blocks:
                blocks.pop()
        elif word in ("comment", "mainmenu"):
            # What follows belongs to the comment, not to a symbol or a block.
            self._symbol, self._current, self._own = "", Definition(), 0
        else:
            self._attribute(line.strip(), word, rest, blocks)

    def _define(self, symbol: str, blocks: list[_Block]) -> None:
        around = [condition for block in reversed(blocks) for condition in block.conditions]
        choice = next((block.choice for block in reversed(blocks) if block.kind == "choice"), 0)
        self._symbol, self._current, self._own = symbol, Definition(depends=around, choice=choice), 0
        self._tree.definitions[symbol].append(self._current)
        if choice:
            self._tree.choices[choice].append(symbol)

    def _attribute(self, line: str, word: str, rest: str, blocks: list[_Block]) -> None:
        if word == "depends":
            condition = rest.removeprefix("on").strip()
            if self._current is not None:
                self._current.depends.insert(self._own, condition)
                self._own += 1
            elif blocks and blocks[-1].kind in ("menu", "choice"):
                blocks[-1].conditions.append(condition)
        elif self._current is None:
            return
        elif (match := _TYPE.match(line)) and match[1]:
            self._current.prompts.append(match[2] or "")
        elif word == "select" and self._symbol and (match := _SELECT.match(line)):
            self._tree.selectors[match[1]].append((self._symbol, match[2] or ""))


def _statements(text: str) -> list[str]:
    """Lines that say something: continued lines joined, comments and help texts left out."""
    found: list[str] = []
    help_indent = -1  # -1: not in a help text; 0: its first line is yet to come
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.expandtabs()
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if help_indent >= 0 and indent and (not help_indent or indent >= help_indent):
            help_indent = help_indent or indent
            continue
        help_indent = -1
        if line.strip() in ("help", "---help---"):
            help_indent = 0
        elif not line.lstrip().startswith("#"):
            found.append(line)
    return found


def holds(expression: str, got: Mapping[str, str]) -> bool:
    """Whether an expression is met (y or m) in a configuration; one that can't be read counts as met."""
    if len(expression) > _LONGEST_EXPRESSION:
        return True
    tokens = [match[1] for match in _TOKEN.finditer(expression)]
    try:
        value = _Evaluator(tokens, got).whole()
    except (IndexError, ValueError, RecursionError):
        return True
    return value > 0


def symbols(expression: str) -> list[str]:
    """The symbols that an expression names, in order, each once; of one that is too long to be read, those at its beginning."""
    words = [match[1] for match in _TOKEN.finditer(expression[:_LONGEST_EXPRESSION])]
    return list(dict.fromkeys(word for word in words if re.fullmatch(r"[A-Z0-9_]*[A-Z][A-Za-z0-9_]*", word)))


_TRISTATE = {"n": 0, "m": 1, "y": 2}


class _Evaluator:
    """Recursive descent over the grammar of expressions: n is 0, m is 1, y is 2; && is the lesser, || the greater, !x is 2 - x."""

    def __init__(self, tokens: list[str], got: Mapping[str, str]) -> None:
        self._tokens = tokens
        self._got = got
        self._at = 0

    def whole(self) -> int:
        value = self._either()
        if self._at != len(self._tokens):
            raise ValueError("something is left over")
        return value

    def _either(self) -> int:
        value = self._both()
        while self._take("||"):
            value = max(value, self._both())
        return value

    def _both(self) -> int:
        value = self._single()
        while self._take("&&"):
            value = min(value, self._single())
        return value

    def _single(self) -> int:
        if self._take("!"):
            return 2 - self._single()
        if self._take("("):
            value = self._either()
            if not self._take(")"):
                raise ValueError("no closing parenthesis")
            return value
        left = self._next()
        for operator in ("=", "!=", "<=", ">=", "<", ">"):
            if self._take(operator):
                return 2 * _compare(self._text(left), operator, self._text(self._next()))
        return 2 if left.startswith("$") else _TRISTATE.get(self._text(left), 0)

    def _text(self, token: str) -> str:
        if token[0] in "\"'":
            return token[1:-1]
        if token in _TRISTATE or token.startswith("$") or re.fullmatch(r"\d+|0x[0-9a-fA-F]+", token):
            return token
        value = self._got.get(token, "n")
        return value[1:-1] if value.startswith('"') else value

    def _take(self, token: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == token:
            self._at += 1
            return True
        return False

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]


def _compare(left: str, operator: str, right: str) -> bool:
    if left.startswith("$") or right.startswith("$"):
        return True
    if operator == "=":
        return left == right
    if operator == "!=":
        return left != right
    one, two = int(left, 0), int(right, 0)
    return {"<": one < two, ">": one > two, "<=": one <= two, ">=": one >= two}[operator]
