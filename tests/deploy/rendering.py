"""The chart, rendered by the real helm, as plain documents."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "kernfarm"
EXAMPLES = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))

Document = dict[str, Any]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the pinned helm."""
    return subprocess.run([str(ROOT / "tools" / "helm"), *words], capture_output=True, text=True, timeout=280, check=False, env=os.environ)


def values_file(example: str) -> Path:
    return CHART / "ci" / f"{example}-values.yaml"


def render(example: str, *words: str, release: str = "farm", chart: Path = CHART) -> str:
    """All manifests of an example as helm prints them. `words`: further ones of `helm template`."""
    done = helm("template", release, str(chart), "--values", str(values_file(example)), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _rendered(example: str, sets: tuple[str, ...], version: str) -> str:
    return render(example, "--kube-version", version, *[word for each in sets for word in ("--set", each)])


def text(example: str, *sets: str, version: str = "1.34.0") -> str:
    """All manifests of an example as helm prints them. `sets`: further values, PATH=VALUE."""
    return _rendered(example, sets, version)


def documents(example: str, *sets: str, version: str = "1.34.0") -> list[Document]:
    """The same as documents."""
    return [each for each in yaml.safe_load_all(text(example, *sets, version=version)) if each is not None]


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [each for each in documents if each["kind"] == kind]


def named(documents: list[Document], kind: str, ending: str) -> Document:
    """The one document of a kind whose name ends like that."""
    (found,) = [each for each in of_kind(documents, kind) if each["metadata"]["name"].endswith(ending)]
    return found


def pod_templates(documents: list[Document]) -> dict[str, Document]:
    """Pod templates by a name for messages: of the Deployment, the RayCluster's groups and the test pod."""
    found: dict[str, Document] = {}
    for document in documents:
        if document["kind"] == "Deployment":
            found["coordinator"] = document["spec"]["template"]
        elif document["kind"] == "Pod":
            found["test"] = {"metadata": document["metadata"], "spec": document["spec"]}
        elif document["kind"] == "RayCluster":
            found["head"] = document["spec"]["headGroupSpec"]["template"]
            for group in document["spec"]["workerGroupSpecs"]:
                found[f"worker-{group['groupName']}"] = group["template"]
    return found


def containers(template: Document) -> dict[str, Document]:
    """All containers of a pod template by name, those that run first included."""
    spec = template["spec"]
    return {each["name"]: each for each in (*spec.get("initContainers", ()), *spec["containers"])}
