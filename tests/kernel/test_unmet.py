"""Why options did not stick, on Kconfig files as kernels have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import kconfig, kconfig_language, unmet
from kernel.kconfig_language import holds, symbols

FILES = {
    "Kconfig": 'mainmenu "Linux"\nsource "net/Kconfig"\nsource "arch/$(SRCARCH)/Kconfig"\nsource "nowhere/Kconfig"\n',
    "net/Kconfig": """
menuconfig NET
\tbool "Networking"
\thelp
\t  A text that speaks:
\t  config GHOST
\t    depends on NOTHING

\t  if it says so
if NET
config INET
\tbool "TCP/IP"
menu "Filters"
\tdepends on INET
\tvisible if NET
config FILTER
\ttristate "Filter"
\tdepends on PROC_FS && \\
\t\t(SYSFS || BROKEN)
\tselect FILTER_CORE if INET
\thelp
\t  One.
config FILTER_CORE
\ttristate
endmenu
comment "not for you"
\tdepends on !INET
config EXPERIMENT
\tbool "Experiment" if EXPERT
endif
config LAST
\tbool "Last"
""",
    "arch/x86/Kconfig": """
choice
\tprompt "Unwinder"
\tdefault ORC
config ORC
\tbool "ORC"
\tdepends on X86_64
config GUESS
\tbool "Guess"
endchoice
config LAST
\tbool "Last, here with more to ask"
\tdepends on NEVER && EVER
config HAS_PLUGINS
\tbool "Plugins"
\tdepends on $(success,test -e $(shell,$(CC) -print))
""",
}
TREE = kconfig_language.read(FILES.get, {"SRCARCH": "x86"})


def why(line: str, **got: str) -> str:
    (lost,) = kconfig.missed(kconfig.parse(line, "my.config"), got)
    (missed,) = unmet.explain([lost], got, TREE)
    assert (missed.where, missed.got) == ("my.config:1", got.get(missed.symbol, "n"))
    return missed.why


def test_a_dependency_of_its_own_of_the_menu_and_of_the_if_around_it() -> None:
    said = why("CONFIG_FILTER=m", NET="y", SYSFS="y")
    assert said == "it depends on PROC_FS && (SYSFS || BROKEN) (is PROC_FS=n, SYSFS=y, BROKEN=n) and on INET (is INET=n)"
    assert why("CONFIG_INET=y") == "it depends on NET (is NET=n)"


def test_a_symbol_that_is_not_there_and_the_one_that_was_meant() -> None:
    assert why("CONFIG_FLITER=m") == "this tree has no such symbol; did you mean CONFIG_FILTER?"
    assert why("CONFIG_GHOST=m") == "this tree has no such symbol", "a help text defines nothing"


def test_what_others_select_or_set() -> None:
    assert why("# CONFIG_FILTER_CORE is not set", FILTER_CORE="m", FILTER="m", INET="y", NET="y") == "selected by CONFIG_FILTER (is m)"
    assert why("CONFIG_FILTER_CORE=y", INET="y", NET="y") == "it has no prompt: only other options set it"


def test_a_hidden_prompt_and_a_choice() -> None:
    assert why("CONFIG_EXPERIMENT=y", NET="y") == "it can be set only if EXPERT (is EXPERT=n)"
    assert "CONFIG_ORC is the one that is chosen" in why("CONFIG_GUESS=y", ORC="y")
    assert why("CONFIG_ORC=y") == "it depends on X86_64 (is X86_64=n)"


def test_of_several_definitions_the_nearest_counts_and_macros_count_as_met() -> None:
    assert why("CONFIG_LAST=y") == "the tree's Kconfig does not take this value"
    assert why("CONFIG_HAS_PLUGINS=y") == "the tree's Kconfig does not take this value"


def test_y_of_what_can_only_be_a_module() -> None:
    assert "can only be one too" in why("CONFIG_FILTER=y", FILTER="m", INET="y", NET="y", PROC_FS="y", SYSFS="y")


@pytest.mark.parametrize(
    ("expression", "met"),
    [
        ("A", True),
        ("B", False),
        ("M", True),
        ("!A", False),
        ("!B && A", True),
        ("B || A && !B", True),
        ("!(A || B)", False),
        ("A = y", True),
        ("A != y", False),
        ("M = m", True),
        ('S = "x"', True),
        ('S = ""', False),
        ("N >= 0x10", True),
        ("N < 16", False),
        ("A && (", True),
        ("$(cc-option,-x) && B", False),
        ("$(cc-option,-x(1))", True),
        ("", True),
    ],
)
def test_expressions(expression: str, met: bool) -> None:
    assert holds(expression, {"A": "y", "M": "m", "S": '"x"', "N": "16"}) is met


def test_the_symbols_of_an_expression() -> None:
    assert symbols('X86_64 && !(FOO || X86_64) && BAR = y && "text"') == ["X86_64", "FOO", "BAR"]


@given(st.text(alphabet='AB&|!()=<>"$ \n\tconfigmenu if', max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    kconfig_language.read({"Kconfig": text}.get, {})
    holds(text, {"A": "y"})


def test_a_file_that_sources_itself_ends() -> None:
    kconfig_language.read({"Kconfig": 'source "Kconfig"\n' * 3}.get, {})


@pytest.mark.parametrize("expression", ["!" * 3000 + "A", "(" * 3000 + "A" + ")" * 3000, "!" * 200_000 + "A", "A && " * 5000 + "B"])
def test_an_expression_that_is_too_deep_or_too_long_counts_as_met(expression: str) -> None:
    assert holds(expression, {})
    assert set(symbols(expression)) <= {"A", "B"}
    tree = kconfig_language.read({"Kconfig": f"config X\n\tbool\n\tdepends on {expression}\n"}.get, {})
    (lost,) = kconfig.parse("CONFIG_X=y", "my.config")
    assert unmet.explain([lost], {}, tree)[0].why == "it has no prompt: only other options set it"


def test_a_tree_that_sources_a_large_file_again_and_again_is_read_in_part() -> None:
    loaded: list[str] = []

    def load(path: str) -> str:
        loaded.append(path)
        return 'source "big"\n' * 1000 if path == "Kconfig" else "#" * (4 << 20)

    tree = kconfig_language.read(load, {})
    assert len(loaded) < 20
    assert not tree.whole
    (lost,) = kconfig.parse("CONFIG_X=y", "my.config")
    assert "too large" in unmet.explain([lost], {}, tree)[0].why
    assert unmet.undefined([lost], tree) == ()


def test_blocks_that_never_end_do_not_multiply() -> None:
    tree = kconfig_language.read({"Kconfig": "if A\n" * 5000 + "config X\n\tbool\n"}.get, {})
    assert len(tree.definitions["X"][0].depends) <= 200
    assert not tree.whole


def test_what_is_asked_off_is_undefined_only_when_the_tree_does_not_have_it() -> None:
    options = kconfig.parse("# CONFIG_INTE is not set\nCONFIG_ORC=n\n# CONFIG_INET is not set\n# CONFIG_CC_HAS_X is not set\n", "x")
    off = kconfig.absent(options, {"INET": "n"})
    assert [option.symbol for option in off] == ["INTE", "ORC"]
    assert [option.symbol for option in unmet.undefined(off, TREE)] == ["INTE"]


def test_a_definition_with_a_comment_behind_it_counts() -> None:
    assert "A" in kconfig_language.read({"Kconfig": "config A # since 6.1\n\tbool\n"}.get, {}).definitions


def test_a_source_line_that_is_indented_is_followed() -> None:
    files = {"Kconfig": 'if B\n\tsource "more"\nendif\n', "more": "config A\n\tbool\n"}
    assert kconfig_language.read(files.get, {}).definitions["A"][0].depends == ["B"]
