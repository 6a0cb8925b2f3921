"""A software bill of materials in SPDX 2.3 JSON: the version that scanners, cosign and LinuxKit read (spdx.github.io/spdx-spec/v2.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernel import digest as digests
from kernel.signing.provenance import BuildFacts
from kernel.signing.times import rfc3339

_DOCUMENT, _IMAGE, _SOURCE, _COMPILER = "SPDXRef-DOCUMENT", "SPDXRef-Image", "SPDXRef-Source", "SPDXRef-Compiler"
# Linux is under GPL-2.0-only; the note is about programs that call it (LICENSES/exceptions/Linux-syscall-note).
_LINUX_LICENSE = "GPL-2.0-only WITH Linux-syscall-note"
_NONE = "NOASSERTION"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """A file in an image. SPDX 2.3 wants SHA-1 of each file; the sha256 digest is what counts."""

    name: str
    digest: str
    sha1: str
    size: int


def document(build: BuildFacts, image: str, index: str, files: Sequence[ImageFile]) -> dict[str, Any]:
    """The bill of one image: its files, the kernel's source, patches and compiler. `image`: its name, `index`: its digest."""
    ordered = sorted(files, key=lambda file: file.name)
    patches = [_patch(number, patch.name, patch.digest) for number, patch in enumerate(build.facts.patches, 1)]
    relations = [
        (_DOCUMENT, "DESCRIBES", _IMAGE),
        (_IMAGE, "GENERATED_FROM", _SOURCE),
        (_COMPILER, "BUILD_TOOL_OF", _IMAGE),
        *((each["SPDXID"], "PATCH_FOR", _SOURCE) for each in patches),
        *((_IMAGE, "CONTAINS", _file_id(number)) for number, _ in enumerate(ordered, 1)),
    ]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": f"{image}-{build.release}",
        "documentNamespace": f"urn:kernfarm:sbom:{build.build_id}:{digests.hex_of(index)}",
        "creationInfo": {"created": rfc3339(build.finished_at), "creators": ["Tool: kernfarm"]},
        "packages": [_image(build, image, index, ordered), _source(build), _compiler(build), *patches],
        "files": [_file(number, file) for number, file in enumerate(ordered, 1)],
        "relationships": [{"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other} for one, kind, other in relations],
    }


def files_of(document: dict[str, Any]) -> dict[str, str]:
    """File names and sha256 digests in a document; what is malformed is left out."""
    found: dict[str, str] = {}
    listed = document.get("files")
    for file in listed if isinstance(listed, list) else ():
        sums = file.get("checksums") if isinstance(file, dict) else None
        for each in sums if isinstance(sums, list) else ():
            if isinstance(each, dict) and each.get("algorithm") == "SHA256":
                found[str(file.get("fileName", "")).removeprefix("./")] = f"{digests.ALGORITHM}:{each.get('checksumValue')}"
    return found


def _package(spdx_id: str, name: str, version: str, **more: Any) -> dict[str, Any]:
    return {
        "SPDXID": spdx_id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
        **more,
    }


def _image(build: BuildFacts, image: str, index: str, files: Sequence[ImageFile]) -> dict[str, Any]:
    # Package verification code: SHA-1 over the sorted SHA-1 sums of all files (SPDX 2.3, 7.9).
    code = hashlib.sha1("".join(sorted(file.sha1 for file in files)).encode(), usedforsecurity=False).hexdigest()
    return _package(
        _IMAGE,
        image,
        build.release,
        filesAnalyzed=True,
        packageVerificationCode={"packageVerificationCodeValue": code},
        licenseInfoFromFiles=[_NONE],
        checksums=[_sha256(index)],
        primaryPackagePurpose="OPERATING-SYSTEM",
    )


def _source(build: BuildFacts) -> dict[str, Any]:
    url, version = build.facts.url, build.version
    return _package(
        _SOURCE,
        "linux",
        version,
        downloadLocation=url if url.startswith(("https://", "http://")) else _NONE,
        licenseDeclared=_LINUX_LICENSE,
        checksums=[_sha256(f"{digests.ALGORITHM}:{build.facts.sha256}")],
        primaryPackagePurpose="SOURCE",
        externalRefs=[
            _reference("SECURITY", "cpe23Type", f"cpe:2.3:o:linux:linux_kernel:{version}:*:*:*:*:*:*:*"),
            _reference("PACKAGE-MANAGER", "purl", f"pkg:generic/linux@{version}"),
        ],
    )


def _compiler(build: BuildFacts) -> dict[str, Any]:
    return _package(_COMPILER, build.spec.toolchain, build.compiler, primaryPackagePurpose="APPLICATION")


def _patch(number: int, name: str, digest: str) -> dict[str, Any]:
    return _package(f"SPDXRef-Patch-{number}", name, "", checksums=[_sha256(digest)], primaryPackagePurpose="FILE")


def _reference(category: str, kind: str, locator: str) -> dict[str, str]:
    return {"referenceCategory": category, "referenceType": kind, "referenceLocator": locator}


def _file_id(number: int) -> str:
    return f"SPDXRef-File-{number}"


def _file(number: int, file: ImageFile) -> dict[str, Any]:
    return {
        "SPDXID": _file_id(number),
        "fileName": f"./{file.name}",
        "checksums": [{"algorithm": "SHA1", "checksumValue": file.sha1}, _sha256(file.digest)],
        "licenseConcluded": _NONE,
        "licenseInfoInFiles": [_NONE],
        "copyrightText": _NONE,
    }


def _sha256(digest: str) -> dict[str, str]:
    return {"algorithm": "SHA256", "checksumValue": digests.hex_of(digest)}
