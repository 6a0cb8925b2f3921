from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from kernel.errors import Code, FarmError
from worker import archive, cgroup
from worker.cgroup import Limits, Unlimited, Version1, Version2, detect
from worker.sandbox import Bind, Bubblewrap, Job, NullSandbox

ENV = {"PATH": "/usr/bin:/bin"}


def shell(script: str, **more: object) -> Job:
    return Job(argv=("/bin/sh", "-c", script), env=ENV, **more)  # type: ignore[arg-type]  # the fields of Job


def test_its_own_exit_code_output_and_user(sandbox: Bubblewrap) -> None:
    outcome = sandbox.run(shell("id -u; echo to stderr >&2; exit 7"))
    assert outcome.code == 7
    assert outcome.output.splitlines() == [b"1000", b"to stderr"]


def test_nothing_of_the_host_can_be_seen(sandbox: Bubblewrap, open_folder: Path) -> None:
    (open_folder / "secret").write_text("x")
    seen = sandbox.run(
        shell(f"ls /; ls /root /home /var /srv {open_folder} /etc/shadow 2>&1; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'")
    )
    text = seen.output.decode()
    assert "secret" not in text
    assert text.count("No such file or directory") == 6
    assert int(text.splitlines()[-1]) < 10


def test_the_environment_is_what_the_job_names(sandbox: Bubblewrap) -> None:
    os.environ["KERNFARM_TEST_SECRET"] = "secret"
    try:
        assert b"SECRET" not in sandbox.run(shell("env")).output
    finally:
        del os.environ["KERNFARM_TEST_SECRET"]


def test_there_is_no_network(sandbox: Bubblewrap) -> None:
    outcome = sandbox.run(shell("cat /proc/net/dev | grep -v lo: | tail -n +3; exec 3<>/dev/tcp/127.0.0.1/1"))
    assert b":" not in outcome.output.partition(b"sh:")[0].partition(b"/bin")[0]
    assert outcome.code != 0


def test_only_writable_binds_can_be_written(sandbox: Bubblewrap, open_folder: Path) -> None:
    read_only = archive.make_folder(open_folder / "ro", sandbox)
    writable = archive.make_folder(open_folder / "rw", sandbox)
    binds = (Bind(host=read_only, inside="/build/src"), Bind(host=writable, inside="/build/out", writable=True))
    outcome = sandbox.run(shell("touch /build/out/a; touch /build/src/a /usr/a /a 2>&1; exit 0", binds=binds))
    assert outcome.output.count(b"Read-only file system") + outcome.output.count(b"Permission denied") == 3
    assert (writable / "a").exists()
    assert (writable / "a").stat().st_uid == sandbox.uid
    assert not (read_only / "a").exists()


def test_memory_beyond_the_limit_is_told_from_a_failure(sandbox: Bubblewrap) -> None:
    outcome = sandbox.run(shell("tail /dev/zero", limits=Limits(memory_bytes=64 << 20)))
    assert outcome.out_of_memory
    assert outcome.code != 0
    assert not sandbox.run(shell("exit 1", limits=Limits(memory_bytes=64 << 20))).out_of_memory


def test_a_fork_bomb_ends(sandbox: Bubblewrap) -> None:
    outcome = sandbox.run(shell("for i in $(seq 200); do sleep 30 & done; wait", limits=Limits(pids=50), timeout_seconds=20))
    assert outcome.code != 0
    assert b"fork" in outcome.output.lower()


def test_cpu_time_is_counted_and_limited(sandbox: Bubblewrap) -> None:
    outcome = sandbox.run(shell("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done", limits=Limits(cpus=0.5)))
    spent = outcome.spent.cpu_user_seconds + outcome.spent.cpu_system_seconds
    assert spent > 0.05
    assert spent < 0.75 * outcome.seconds


def sleepers() -> list[int]:
    return [each.pid for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "61.5"]]


def test_a_timeout_ends_everything(sandbox: Bubblewrap) -> None:
    with pytest.raises(FarmError) as caught:
        sandbox.run(shell("sleep 61.5 & setsid sleep 61.5 & sleep 61.5", timeout_seconds=1))
    assert caught.value.problem.code is Code.TIMEOUT
    assert sleepers() == []


def test_cancelling_ends_everything_soon(sandbox: Bubblewrap) -> None:
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(FarmError) as caught:
        sandbox.run(shell("trap '' TERM; sleep 61.5 & sleep 61.5"), cancel=cancel)
    assert caught.value.problem.code is Code.CANCELLED
    assert time.monotonic() - started < 10
    assert sleepers() == []


def test_a_sandbox_that_cannot_be_set_up_is_not_the_commands_failure(sandbox: Bubblewrap, open_folder: Path) -> None:
    with pytest.raises(FarmError) as caught:
        sandbox.run(shell("true", binds=(Bind(host=open_folder / "none", inside="/build/x"),)))
    assert caught.value.problem.code is Code.SANDBOX_FAILED


def test_version_2_counts_even_without_controllers(tmp_path: Path) -> None:
    root = Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").is_dir() else Path("/sys/fs/cgroup")
    if not (root / "cgroup.subtree_control").exists() or not os.access(root, os.W_OK):
        pytest.skip("no writable version 2 hierarchy on this machine")
    parent = root / f"kf-test-{os.getpid()}"
    parent.mkdir()
    try:
        manager = Version2(parent)
        box = Bubblewrap(uid=64000, cgroups=manager)
        outcome = box.run(shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"))
        assert outcome.spent.cpu_user_seconds + outcome.spent.cpu_system_seconds > 0
        assert [entry for entry in parent.iterdir() if entry.is_dir()] == []
    finally:
        parent.rmdir()


def fake_v2(root: Path, own: str, controllers: str = "cpu io memory pids") -> Path:
    """A hierarchy as version 2 shows it, and the file that says where we are in it."""
    for folder in (root, root / own):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text("")
        (folder / "cgroup.procs").write_text("")
    place = root.with_name("own")
    place.write_text(f"0::/{own}\n")
    return place


def test_root_in_a_login_session_uses_the_top_of_version_2(tmp_path: Path) -> None:
    own = fake_v2(tmp_path / "cgroup", "user.slice/session-1.scope")
    assert cgroup._own_v2(tmp_path / "cgroup", own) == tmp_path / "cgroup/kernfarm"
    assert (tmp_path / "cgroup/cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert (tmp_path / "cgroup/kernfarm/cgroup.subtree_control").read_text() == "+memory +cpu +pids"


def test_a_delegated_group_of_version_2_is_emptied_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container, or as a user with a delegated scope: the kernel says EBUSY while processes share the group."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    home = tmp_path / "cgroup/user.slice/kf.scope"
    own = fake_v2(tmp_path / "cgroup", "user.slice/kf.scope")
    (home / "cgroup.procs").write_text("12\n")
    write = Path.write_text

    def as_the_kernel(path: Path, text: str) -> int:
        if path == home / "cgroup.subtree_control" and (home / "cgroup.procs").read_text():
            raise OSError(errno.EBUSY, "Device or resource busy")
        if path == home / "kernfarm-processes/cgroup.procs":
            write(home / "cgroup.procs", "")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", as_the_kernel)
    assert cgroup._own_v2(tmp_path / "cgroup", own) == home / "kernfarm"
    assert (home / "kernfarm-processes/cgroup.procs").read_text() == "12"
    assert (home / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"


def test_limits_are_written_as_the_kernel_reads_them(tmp_path: Path) -> None:
    for name in Version1.CONTROLLERS:
        (tmp_path / name / "kernfarm").mkdir(parents=True)
    limits = Limits(memory_bytes=1 << 20, cpus=1.5, pids=7)
    context = Version1(tmp_path).group("g", limits)
    group = context.__enter__()
    assert (tmp_path / "memory/kernfarm/g/memory.limit_in_bytes").read_text() == "1048576"
    assert (tmp_path / "cpu/kernfarm/g/cpu.cfs_quota_us").read_text() == "150000"
    assert (tmp_path / "pids/kernfarm/g/pids.max").read_text() == "7"
    assert len(group.entries) == 4


def test_no_control_groups_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = detect(tmp_path)
    assert isinstance(manager, Unlimited)
    assert manager.describe() == "none"
    assert "do not hold" in caplog.text


def test_without_a_sandbox_paths_and_environment_look_the_same(open_folder: Path) -> None:
    """For machines where bubblewrap can't run: loud, and nothing but the paths is as in a sandbox."""
    source, out = open_folder / "it's a tree", open_folder / "out"
    source.mkdir()
    (source / "file").write_text("read me")
    out.mkdir()
    null = NullSandbox(cgroups=detect())
    job = Job(
        argv=("sh", "-c", "cat /build/src/file; echo made > made; pwd; echo $WORD; echo x > /build/src/file"),
        binds=(Bind(host=source, inside="/build/src"), Bind(host=out, inside="/build/out", writable=True)),
        env={"PATH": "/usr/bin:/bin", "WORD": "said"},
        cwd="/build/out",
    )
    outcome = null.run(job)
    assert outcome.output.decode().splitlines()[:2] == ["read me/build/out", "said"]
    assert (out / "made").read_text() == "made\n"
    assert outcome.code != 0, "a read-only bind was written"
    assert (source / "file").read_text() == "read me"
    assert not Path("/build/src").exists(), "the mounts are the job's alone"


def test_groups_of_killed_workers_are_swept_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    dead, random = process_that_ended(), "0" * 32
    for name in Version1.CONTROLLERS:
        parent = tmp_path / name / "kernfarm"
        for group in (
            f"job-{dead}-{random}",
            f"job-{os.getpid()}-{random}",
            f"job-{dead}-{random[:-1]}1",
            f"bench-{dead}",
            f"job-{random}",
        ):
            (parent / group).mkdir(parents=True)
        (parent / f"job-{dead}-{random[:-1]}1/busy").touch()  # as EBUSY: what is in use can't be removed
    assert isinstance(detect(tmp_path), Version1)
    for name in Version1.CONTROLLERS:
        left = {path.name for path in (tmp_path / name / "kernfarm").iterdir()}
        assert left == {f"job-{os.getpid()}-{random}", f"job-{dead}-{random[:-1]}1", f"bench-{dead}", f"job-{random}"}


def test_version_2_is_swept_too_and_groups_carry_their_makers_pid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_v2(tmp_path / "cgroup", "")
    monkeypatch.setattr(cgroup, "_own_v2", lambda root: root)
    monkeypatch.setattr(os, "getpid", process_that_ended)
    old = cgroup.job_name()
    monkeypatch.undo()
    monkeypatch.setattr(cgroup, "_own_v2", lambda root: root)
    own = cgroup.job_name()
    for name in (old, own):
        (tmp_path / "cgroup" / name).mkdir()
    assert isinstance(detect(tmp_path / "cgroup"), Version2)
    assert [path.name for path in (tmp_path / "cgroup").iterdir() if path.is_dir()] == [own]


def process_that_ended() -> int:
    with psutil.Popen(["true"]) as child:
        pid = child.pid
    return int(pid)
