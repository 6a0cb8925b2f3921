"""The listener for metrics: addresses, the target file, and its end."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from kernel.errors import Code, FarmError
from kernfarm import exposition


@pytest.mark.parametrize(("listen", "host"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]")])
def test_it_serves_and_says_where_and_ends(tmp_path: Path, listen: str, host: str) -> None:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(3)
    path = tmp_path / "targets.json"
    served = exposition.serve(registry, listen, job="kernfarm-x", address_file=str(path))
    with urllib.request.urlopen(f"http://{served.address}/metrics", timeout=10) as answer:
        assert "things_total 3.0" in answer.read().decode()
    assert served.address.startswith(f"{host}:")
    assert json.loads(path.read_text()) == [{"targets": [served.address], "labels": {"job": "kernfarm-x"}}]
    served.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{served.address}/metrics", timeout=10)


def test_an_address_that_is_taken_or_none_is_said_with_the_mend() -> None:
    served = exposition.serve(CollectorRegistry(), "127.0.0.1:0", job="j")
    try:
        for listen, code in (
            (served.address, Code.UNAVAILABLE),
            ("127.0.0.1:99999", Code.UNAVAILABLE),
            ("no.such.host.invalid:0", Code.UNAVAILABLE),
            ("9420", Code.INVALID_ARGUMENT),
            ("127.0.0.1:http", Code.INVALID_ARGUMENT),
        ):
            with pytest.raises(FarmError) as caught:
                exposition.serve(CollectorRegistry(), listen, job="j")
            assert caught.value.problem.code is code
            assert caught.value.problem.hint
    finally:
        served.close()
