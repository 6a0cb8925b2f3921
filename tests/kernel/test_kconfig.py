from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import kconfig
from kernel.errors import Code, FarmError
from kernel.kconfig import Option

symbols = st.from_regex(r"[A-Z][A-Z0-9_]{0,12}", fullmatch=True)
plain_values = st.sampled_from(["y", "m", "n", "42", "0x1f", '"text"', '"with \\" quote"'])


@given(st.dictionaries(symbols, plain_values, max_size=20))
def test_what_is_rendered_is_read_back(values: dict[str, str]) -> None:
    options = [Option(symbol=symbol, value=value, where="x") for symbol, value in values.items()]
    assert kconfig.values(kconfig.render(options)) == values


@pytest.mark.parametrize(
    "line", ["CONFIG_A", "A=y", "CONFIG_A = y", 'CONFIG_A="open', "CONFIG_A=yes", "include other", "CONFIG_A=$(shell id)"]
)
def test_a_bad_line_is_named_by_file_and_line(line: str) -> None:
    with pytest.raises(FarmError) as caught:
        kconfig.parse(f"# fine\n\n{line}\n", "my.config")
    assert caught.value.problem.code is Code.BAD_CONFIG
    assert caught.value.problem.where == "my.config:3"


def test_fragments_that_contradict_each_other_name_both_places() -> None:
    one = kconfig.parse("CONFIG_A=y\nCONFIG_B=m\n", "one")
    two = kconfig.parse("CONFIG_B=m\n# CONFIG_A is not set\n", "two")
    with pytest.raises(FarmError, match=r"two:2: CONFIG_A=n contradicts CONFIG_A=y at one:1"):
        kconfig.merge([one, two])
    assert len(kconfig.merge([one, one])) == 2


@pytest.mark.parametrize(
    "line",
    [
        'CONFIG_INITRAMFS_SOURCE="/etc/shadow"',
        'CONFIG_INITRAMFS_SOURCE="usr/list ../../secret"',
        'CONFIG_MODULE_SIG_KEY="/root/key.pem"',
        'CONFIG_MODULE_SIG_KEY="pkcs11:token=x"',
        'CONFIG_SYSTEM_TRUSTED_KEYS="certs/../../x.pem"',
        'CONFIG_EXTRA_FIRMWARE_DIR="/lib/firmware"',
        'CONFIG_SOME_NEW_KEYDIR="/x"',
        'CONFIG_LOCALVERSION="$(id)"',
        'CONFIG_LOCALVERSION="`id`"',
        'CONFIG_EXTRA_FIRMWARE_DIR="a;id"',
        "CONFIG_INITRAMFS_SOURCE=\"''/etc/shadow\"",
        r'CONFIG_INITRAMFS_SOURCE="\"/etc/passwd\""',
        r'CONFIG_SYSTEM_TRUSTED_KEYS="\\/etc/x"',
        "CONFIG_EXTRA_FIRMWARE_DIR=\".''./.''./etc\"",
        'CONFIG_EXTRA_FIRMWARE="x=/etc/shadow"',
        'CONFIG_EXTRA_FIRMWARE="*"',
        'CONFIG_EXTRA_FIRMWARE="{a,/etc/shadow}"',
    ],
)
def test_values_that_reach_outside_the_tree_are_refused(line: str) -> None:
    with pytest.raises(FarmError) as caught:
        kconfig.refuse_unsafe(kconfig.parse(line, "my.config"))
    assert caught.value.problem.code is Code.UNSAFE_CONFIG
    assert caught.value.problem.where == "my.config:1"


@pytest.mark.parametrize(
    "line",
    [
        'CONFIG_INITRAMFS_SOURCE=""',
        'CONFIG_INITRAMFS_SOURCE="usr/list usr/more"',
        'CONFIG_MODULE_SIG_KEY="certs/signing_key.pem"',
        'CONFIG_MODPROBE_PATH="/sbin/modprobe"',
        'CONFIG_EXTRA_FIRMWARE="a/b.bin c/d-sdio.raspberrypi,4-model-b.bin"',
        "CONFIG_CMDLINE=\"init='/bin/sh' root=/dev/sda1\"",
    ],
)
def test_values_inside_the_tree_and_of_the_running_kernel_are_fine(line: str) -> None:
    kconfig.refuse_unsafe(kconfig.parse(line, "my.config"))


_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"'})


@given(st.text(alphabet="'\"\\/.~$*?[]{}!#%^()=:,@+- \tetc\u00a0", max_size=12) | st.text(max_size=12))
def test_a_path_that_is_let_through_is_inside_the_tree_for_a_shell_too(text: str) -> None:
    option = Option(symbol="INITRAMFS_SOURCE", value=f'"{text.translate(_ESCAPED)}"', where="x")
    try:
        kconfig.refuse_unsafe([option])
    except FarmError as error:
        assert error.problem.code is Code.UNSAFE_CONFIG
        return
    words = shlex.split(text)
    assert words == text.split(), "a shell makes other words of it"
    assert not [word for word in words if word.startswith(("/", "~")) or ".." in word.split("/")]


@given(st.lists(st.from_regex(r"[a-z0-9_][a-z0-9._+-]{0,6}(/[a-z0-9_]{1,6}){0,3}(,[0-9])?", fullmatch=True), max_size=4))
def test_plain_paths_inside_the_tree_are_let_through(paths: list[str]) -> None:
    paths = [path for path in paths if ".." not in path]
    kconfig.refuse_unsafe([Option(symbol="EXTRA_FIRMWARE", value=f'"{" ".join(paths)}"', where="x")])
