"""Numbers on pages that people wrote are those of the code."""

from __future__ import annotations

from kernel import plan
from kernfarm.cli import doctor, signer
from kernfarm.settings import CoordinatorSettings
from tests.docs.pages import ROOT


def words(name: str) -> str:
    """A page as one line."""
    return " ".join((ROOT / "docs" / name).read_text().split())


def test_how_a_kernel_is_split() -> None:
    page = words("explanation/how-a-kernel-is-split.md")
    assert f"{plan._SECONDS_EACH} CPU-seconds, for the headers, and {plan._SECONDS_PER_BYTE * 1e6:g} more for each megabyte" in page
    assert f"at least {plan._SHORTEST_SECONDS:g} CPU-seconds" in page
    assert f"`longest_shard_seconds` ({CoordinatorSettings().longest_shard_seconds:g})" in page
    assert (plan._SHARDS_PER_SLOT, "a third of what one slot's share is" in page) == (3, True)
    for folder in plan._LINK_ONLY:
        assert f"`{folder}`" in page


def test_the_signers_user_and_what_the_tutorial_needs() -> None:
    assert f"user {signer.SIGNER_UID} and" in words("howto/deploy.md")
    assert f"{doctor._TREE_BYTES >> 30} GiB of disk" in words("tutorial.md")
