"""Which words are the address of a farm, and what is said of others."""

from __future__ import annotations

import pytest

from kernel.errors import Code, FarmError
from kernfarm.address import check
from kernfarm.cli.main import main


@pytest.mark.parametrize("address", ["127.0.0.1:7420", "farm.example.org:1", "[::1]:7420", "[fe80::1%eth0]:65535", "unix:///s", "unix:s"])
def test_addresses(address: str) -> None:
    assert check(address) == address


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("127.0.0.1", "HOST:PORT"),
        ("farm:", "HOST:PORT"),
        (":7420", "HOST:PORT"),
        ("farm:https", "HOST:PORT"),
        ("farm:7420/", "HOST:PORT"),
        ("someone@farm:7420", "HOST:PORT"),
        ("::1:7420", "[V6]:PORT"),
        ("[::1]", "[V6]:PORT"),
        ("", "HOST:PORT"),
        ("http://farm:7420/builds", "without it: farm:7420"),
        ("https://farm", "without it: farm"),
        ("farm:0", "1 to 65535"),
        ("farm:65536", "1 to 65535"),
        ("unix://", "unix:///PATH"),
    ],
)
def test_what_is_no_address_is_said_with_the_form_that_is_one(address: str, hint: str) -> None:
    with pytest.raises(FarmError) as caught:
        check(address)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert hint in caught.value.problem.hint


@pytest.mark.parametrize("address", ["127.0.0.1", "http://127.0.0.1:7420"])
def test_the_command_line_says_it_before_it_calls(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--farm", address]) == 2
    said = capsys.readouterr().err
    assert address in said and "the farm's address" in said
    assert "kernfarm up" not in said
