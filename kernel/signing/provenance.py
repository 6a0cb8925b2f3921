"""SLSA provenance, version 1 (slsa.dev/spec/v1.0/provenance), from plain values: the same build gives the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kernel import digest as digests
from kernel.codec import to_plain
from kernel.signing.times import rfc3339
from kernel.spec import BuildSpec, NamedBlob
from kernel.steps import SourceFacts

# What external and internal parameters mean is in docs/reference/images.md.
BUILD_TYPE = "urn:kernfarm:build-type:linux-kernel:v1"
BOOTED = "passed"
SOURCE, TREE, CONFIG, PATCH, FRAGMENT = "source", "tree", "config", "patch", "config-fragment"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """What a finished build was made from, by whom, when (unix seconds). `tarball`: digest of the stored source, `config` of the final
    .config, `inputs` of all that the tags' hash is made of, `record` of the result record; `booted`: by the farm, in QEMU;
    `facts.patches` are the patches applied, in order."""

    build_id: str
    builder_id: str
    spec: BuildSpec
    facts: SourceFacts
    tarball: str
    version: str
    config: str
    release: str
    compiler: str
    reproduce: str
    inputs: str
    record: str
    booted: bool
    started_at: float
    finished_at: float


def predicate(build: BuildFacts) -> dict[str, Any]:
    """The predicate of the provenance statement."""
    parameters = to_plain(build.spec)
    del parameters["domain"]  # the team's name: nothing to rebuild with, and images are published
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": parameters,
            "internalParameters": {
                "release": build.release,
                "compiler": build.compiler,
                "reproduce": build.reproduce,
                "inputs": build.inputs,
                "boot": BOOTED if build.booted else "skipped",
            },
            "resolvedDependencies": _dependencies(build),
        },
        "runDetails": {
            "builder": {"id": build.builder_id},
            "metadata": {
                "invocationId": build.build_id,
                "startedOn": rfc3339(build.started_at),
                "finishedOn": rfc3339(build.finished_at),
            },
            "byproducts": [{"name": "result-record", "digest": _sha256(build.record), "mediaType": "application/json"}],
        },
    }


def _dependencies(build: BuildFacts) -> list[dict[str, Any]]:
    facts = build.facts
    source = {
        "name": SOURCE,
        "uri": facts.url,
        "digest": _sha256(f"{digests.ALGORITHM}:{facts.sha256}"),
        "annotations": {"resolved": facts.resolved, "signer": facts.signer, "version": build.version},
    }
    tree = {"name": TREE, "digest": _sha256(build.tarball)}
    config = {"name": CONFIG, "digest": _sha256(build.config)}
    return [
        source,
        tree,
        *(_file(PATCH, patch) for patch in facts.patches),
        *(_file(FRAGMENT, blob) for blob in config_files(build.spec)),
        config,
    ]


def config_files(spec: BuildSpec) -> tuple[NamedBlob, ...]:
    """The files that a build's configuration was put together from, in order."""
    base = (spec.config.file,) if spec.config.file is not None else ()
    return (*base, *spec.config.base_fragments, *spec.config.fragments)


def _file(kind: str, blob: NamedBlob) -> dict[str, Any]:
    return {"name": kind, "digest": _sha256(blob.digest), "annotations": {"file": blob.name}}


def _sha256(digest: str) -> dict[str, str]:
    return {"sha256": digests.hex_of(digest)}


def builder_of(predicate: dict[str, Any]) -> str:
    """The builder's id in a predicate; "" when it has none."""
    details = predicate.get("runDetails")
    builder = details.get("builder") if isinstance(details, dict) else None
    found = builder.get("id") if isinstance(builder, dict) else None
    return found if isinstance(found, str) else ""


def build_of(predicate: dict[str, Any]) -> str:
    """The build's id in a predicate; "" when it has none."""
    details = predicate.get("runDetails")
    metadata = details.get("metadata") if isinstance(details, dict) else None
    found = metadata.get("invocationId") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else ""


def release_of(predicate: dict[str, Any]) -> str:
    """The kernel's release in a predicate; "" when it has none."""
    return _internal(predicate, "release")


def inputs_of(predicate: dict[str, Any]) -> str:
    """The digest of the build's inputs in a predicate; "" when it has none."""
    return _internal(predicate, "inputs")


def booted(predicate: dict[str, Any]) -> bool:
    """Whether a predicate says that the farm has booted the image."""
    return _internal(predicate, "boot") == BOOTED


def _internal(predicate: dict[str, Any], name: str) -> str:
    definition = predicate.get("buildDefinition")
    parameters = definition.get("internalParameters") if isinstance(definition, dict) else None
    found = parameters.get(name) if isinstance(parameters, dict) else None
    return found if isinstance(found, str) else ""


def dependencies_of(predicate: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    """(file name, sha256 in hex) of the dependencies of one kind in a predicate, in order; what is malformed is left out."""
    definition = predicate.get("buildDefinition")
    listed = definition.get("resolvedDependencies") if isinstance(definition, dict) else None
    found = []
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("name") == kind and isinstance(each.get("digest"), dict):
            notes = each.get("annotations")
            name = str(notes.get("file", "")) if isinstance(notes, dict) else ""
            found.append((name, str(each["digest"].get("sha256", ""))))
    return found
