"""The images: who runs in them, what they hold, and what the sandbox needs of a container."""

from __future__ import annotations

import json

import pytest

from tests.deploy.composed import services
from tests.deploy.engine import Engine
from tests.deploy.images import IMAGES
from tests.deploy.rendering import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def test_coordinator_starts(engine: Engine) -> None:
    code, output = engine.once("coordinator", ["python", "-m", "coordinator", "--help"])
    assert code == 0 and "--config" in output
    code, output = engine.once("coordinator", ["python", "-m", "coordinator", "--config", "/nowhere.yaml"])
    assert code == 2 and "/nowhere.yaml" in output


def test_coordinator_is_nobody_and_has_no_tools(engine: Engine) -> None:
    folders = "/var/lib/kernfarm/coordinator /var/lib/kernfarm/blobs/blobs/ff /run/kernfarm"
    script = f"id -u; id -g; stat -c '%u:%g %a' {folders}; command -v pip gcc make git"
    _, output = engine.once("coordinator", ["sh", "-c", script])
    assert output.split("\n") == ["10001", "10000", "10001:10000 2750", "10001:10000 2770", "10002:10000 2750", ""]


def test_programs_start_from_byte_code(engine: Engine) -> None:
    """The root is read-only: without byte code in the image each start would compile Ray anew."""
    script = "import importlib, pathlib; print([n for n in ('ray', 'kernel.errors', 'coordinator.machine')"
    script += " if not pathlib.Path(importlib.import_module(n).__cached__).is_file()])"
    for image in IMAGES:
        assert engine.once(image, ["python", "-c", script]) == (0, "[]\n")


def test_images_hold_no_package_index(engine: Engine) -> None:
    for image in IMAGES:
        history = engine.docker("history", "--no-trunc", "--format={{json .}}", f"kernfarm/{image}:0.1.0")
        assert history.count("\n") > 5 and "://" not in history


# --- the sandbox in a container: what docs/howto/deploy.md says it needs

_TRY = ["setpriv", "--reuid=64000", "--regid=64000", "--clear-groups", "--no-new-privs"]
_TRY += ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "--dev", "/dev", "--proc", "/proc", "true"]
_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]
_PROFILE = ["no-new-privileges:true", "seccomp:unconfined", "apparmor:unconfined"]


def _rights(capabilities: list[str], profile: list[str]) -> list[str]:
    return ["--user=0:0", *(f"--cap-add={each}" for each in capabilities), *(f"--security-opt={each}" for each in profile)]


@pytest.mark.parametrize(
    ("capabilities", "profile", "says"),
    [
        ([], [], "No permissions to create new namespace"),
        (["SYS_ADMIN"], [], "pivot_root"),
        ([], _PROFILE, "Can't mount proc"),
    ],
    ids=["default profiles", "the capability alone", "masked proc"],
)
def test_the_sandbox_does_not_run_with_less(engine: Engine, capabilities: list[str], profile: list[str], says: str) -> None:
    code, output = engine.once("worker", _TRY, *_rights(_CAPABILITIES + capabilities, profile))
    assert code != 0 and says in output


def test_a_worker_without_a_mirror_has_the_images_lists(engine: Engine) -> None:
    script = (
        "kernfarm-prepare-worker /t.yaml /run/worker.yaml worker-7 --refresh-apt; cat /run/worker.yaml; apt-cache show linux-source-6.1"
    )
    options = [*_rights(_CAPABILITIES, []), *(f"--tmpfs={name}" for name in ("/run", "/var/lib/apt/lists", "/var/cache/apt"))]
    code, output = engine.once("worker", ["sh", "-ec", script], *options, f"--volume={ROOT}/deploy/config/worker.yaml:/t.yaml:ro")
    assert code == 0 and "lists could not be refreshed" in output and "name: worker-7\n" in output
    assert "Package: linux-source-6.1\n" in output


def test_worker_offers_what_a_build_needs(engine: Engine) -> None:
    service = services()["worker"]
    script = """
kernfarm-prepare-worker /etc/kernfarm/worker.yaml /run/worker.yaml worker-7
kernfarm doctor --json || true
python - <<'PYTHON'
import dataclasses, json
from worker.facts import facts
from worker.ray_entry import _node
from worker.sandbox import Job
print(json.dumps(dataclasses.asdict(facts(_node()))))
print(_node().sandbox.run(Job(argv=("sh", "-c", "id -u; ls /var /home; cat /proc/1/comm"), env={"PATH": "/usr/bin:/bin"})).output.decode())
PYTHON
"""
    options = [
        *_rights(service["cap_add"], service["security_opt"]),
        "--env=KERNFARM_WORKER_CONFIG=/run/worker.yaml",
        *(f"--tmpfs={name}" for name in ("/run", "/var/lib/apt/lists", "/var/cache/apt", "/var/lib/kernfarm/worker")),
        f"--volume={ROOT}/deploy/config/worker.yaml:/etc/kernfarm/worker.yaml:ro",
    ]
    _, output = engine.once("worker", ["sh", "-ec", script], *options)
    findings, _ = json.JSONDecoder().raw_decode(output[output.index("[") :])
    # The image installs its environment at build time and needs nothing that makes one.
    assert {each["name"] for each in findings if not each["ok"]} <= {"ensurepip", "disk space"}
    facts = json.loads(next(line for line in output.splitlines() if line.startswith('{"name"')))
    assert (facts["name"], facts["sandbox"]) == ("worker-7", "bubblewrap")
    assert {"x86_64", "arm64"} <= set(facts["arches"]) and facts["ccache"].startswith("4.")
    assert "1000\n" in output and "No such file or directory" in output  # the user inside, and none of the image's data
