from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.fleet import WorkerInfo
from kernel.errors import Code, FarmError, Problem
from kernel.spec import ConfigSpec, NamedBlob, RequestSpec, SourceKind, SourceSpec
from kernel.steps import RESULTS, TASKS, Attempt, StepKind, Usage
from kernfarm import wire
from kernfarm.v1 import build_service_pb2 as pb
from kernfarm.v1 import worker_pb2

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT = st.integers(0, 2**31 - 1)
FLOAT = st.floats(0, 1e9, allow_nan=False)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a dataclass that goes over the wire."""
    hints = get_type_hints(kind)
    assert all(f.default is not MISSING or f.default_factory is not MISSING or f.name in hints for f in fields(kind))
    return st.builds(kind, **{f.name: _of(hints[f.name]) for f in fields(kind)})


def _of(hint: Any) -> st.SearchStrategy[Any]:
    if get_origin(hint) is tuple:
        return st.lists(_of(get_args(hint)[0]), max_size=3).map(tuple)
    if is_dataclass(hint):
        return values(hint)
    if type(None) in get_args(hint):
        return st.none() | _of(next(arg for arg in get_args(hint) if arg is not type(None)))
    if isinstance(hint, type) and issubclass(hint, SourceKind):
        return st.sampled_from(list(SourceKind))
    return {str: TEXT, int: INT, float: FLOAT, bool: st.booleans()}[hint]


@pytest.mark.parametrize("kind", [kind for kind in StepKind if kind is not StepKind.SIGN])  # no worker signs
def test_attempts_and_results_of_every_kind_of_step_come_back_as_they_were_sent(kind: StepKind) -> None:
    @given(task=values(TASKS[kind]), result=values(RESULTS[kind]), usage=values(Usage), jobs=INT, seconds=FLOAT, words=TEXT)
    def check(task: Any, result: Any, usage: Usage, jobs: int, seconds: float, words: str) -> None:
        attempt = Attempt(attempt_id=words, build_id="b", kind=kind, task=task, domain="d", jobs=jobs, timeout_seconds=seconds)
        assert wire.attempt_from(wire.attempt_to(attempt)) == attempt
        sent = wire.finished_to(result, usage).SerializeToString()
        assert wire.finished_from(worker_pb2.Finished.FromString(sent)) == (result, usage)

    check()


@given(request=values(RequestSpec))
def test_requests_come_back_as_they_were_sent(request: RequestSpec) -> None:
    message = wire.to_message(request, pb.RequestSpec)
    assert wire.request_from(pb.RequestSpec.FromString(message.SerializeToString())) == request


@given(info=values(WorkerInfo))
def test_what_a_worker_offers_comes_back(info: WorkerInfo) -> None:
    message = wire.to_message(info, pb.Worker)
    facts = worker_pb2.WorkerFacts(**{field.name: getattr(message, field.name) for field in worker_pb2.WorkerFacts.DESCRIPTOR.fields})
    assert wire.from_message(WorkerInfo, facts, worker_id=info.worker_id) == info


def test_a_request_without_source_or_config_is_refused_by_name() -> None:
    whole = RequestSpec(
        source=SourceSpec(kind=SourceKind.FILE, ref="x"), arches=("x86_64",), config=ConfigSpec(file=NamedBlob(name="a", digest="b"))
    )
    for name in ("source", "config"):
        message = wire.to_message(whole, pb.RequestSpec)
        message.ClearField(name)  # type: ignore[arg-type]
        with pytest.raises(FarmError) as caught:
            wire.request_from(message)
        assert caught.value.problem.where == name


def test_an_unknown_kind_of_source_is_refused() -> None:
    message = pb.RequestSpec(source=pb.Source(kind="tape", ref="1"), config=pb.Config(base="defconfig"))
    with pytest.raises(FarmError) as caught:
        wire.request_from(message)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert "tape" in caught.value.problem.message


def test_a_problem_of_a_newer_farm_counts_as_a_bug() -> None:
    assert wire.problem_from(pb.Problem(code="NEVER_HEARD_OF", message="m", where="w", hint="h")) == Problem(
        code=Code.INTERNAL, message="m", where="w", hint="h"
    )


def test_an_attempt_without_a_task_is_refused() -> None:
    with pytest.raises(FarmError):
        wire.attempt_from(worker_pb2.Attempt(attempt_id="x").SerializeToString())
