"""Generate the gRPC code from proto/ into kernfarm/v1. `--check` compares with what is there instead and fails when it differs."""

from __future__ import annotations

import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def generate(target: Path) -> None:
    """Proto path and import path are the same, so nothing that comes out has to be patched."""
    protos = sorted(str(path) for path in (ROOT / "proto").rglob("*.proto"))
    well_known = str(resources.files("grpc_tools") / "_proto")
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    code = protoc.main(["protoc", f"--proto_path={ROOT / 'proto'}", f"--proto_path={well_known}", *outputs, *protos])
    if code != 0:
        raise SystemExit(code)
    (target / "kernfarm/v1/__init__.py").write_text('"""Generated from proto/kernfarm/v1 by tools/generate.py."""\n')


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        generate(target)
        made = {path.name: path.read_bytes() for path in (target / "kernfarm/v1").iterdir() if path.is_file()}
    home = ROOT / "kernfarm/v1"
    if "--check" in sys.argv[1:]:
        there = {path.name: path.read_bytes() for path in home.glob("*.py*") if path.is_file()}
        differing = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
        if differing:
            raise SystemExit(f"generated code is not up to date: {', '.join(differing)}; run `make proto`")
        return
    for name, data in made.items():
        (home / name).write_bytes(data)


if __name__ == "__main__":
    main()
