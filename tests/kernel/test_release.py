from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import release
from kernel.errors import Code, FarmError


@pytest.mark.parametrize("text", ["6.1.192-linuxkit", "6.12.0-rc1+", "6.1.0-37-amd64", "5.10.0-next-20260101_x~y", "6" * 63])
def test_releases_of_real_kernels_pass(text: str) -> None:
    assert release.check(text) == text


@pytest.mark.parametrize("text", ["", "../../x", "6.1/x", "6.1..2", "-6.1", ".6", "6.1\n", "6 1", "6.1\x1b[2J", "6" * 64, "6.1é"])
def test_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FarmError) as caught:
        release.check(text)
    assert caught.value.problem.code is Code.BAD_CONFIG


@given(st.text(max_size=70))
def test_what_passes_is_a_harmless_name(text: str) -> None:
    try:
        release.check(text)
    except FarmError:
        return
    assert Path("/base", text).parent == Path("/base")
    assert text.isprintable()
