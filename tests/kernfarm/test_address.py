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
        ("unix://h/p", "unix:///h/p"),
        ("unix:///s\0", "HOST:PORT"),
        ("farm\0:1", "HOST:PORT"),
        ("xds:443", "whole name"),
        ("DNS:443", "whole name"),
        ("[:::::]:1", "[V6]:PORT"),
        ("[1.2.3.4]:1", "[V6]:PORT"),
        ("dns:///a:1", "without it: a:1"),
        ("dns://", "HOST:PORT"),
        ("https://u:pw@farm:1/x", "without it: farm:1"),
    ],
)
def test_what_is_no_address_is_said_with_the_form_that_is_one(address: str, hint: str) -> None:
    with pytest.raises(FarmError) as caught:
        check(address)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert hint in caught.value.problem.hint


@pytest.mark.parametrize(
    "address", ["https://u:hunter2@farm:1/x", "u:hunter2@farm:1", "https://u:hun://hunter2@farm:1", "u:hunter2@farm:1\0", "u:/hunter2@farm"]
)
def test_a_password_is_not_repeated(address: str) -> None:
    with pytest.raises(FarmError) as caught:
        check(address)
    assert "hunter2" not in str(caught.value) and "hunter2" not in repr(caught.value.problem)


@pytest.mark.parametrize("address", ["127.0.0.1", "http://127.0.0.1:7420"])
def test_the_command_line_says_it_before_it_calls(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--farm", address]) == 2
    said = capsys.readouterr().err
    assert address in said and "the farm's address" in said
    assert "kernfarm up" not in said
