"""Whether an image is what a farm built: signatures, digests, provenance, bill of materials, each with its own line in the report.

Order matters: nothing inside an image is unpacked that the key does not vouch for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kernel import digest as digests
from kernel import oci
from kernel.errors import Code, FarmError, Problem
from kernel.signing import statement
from kernel.signing.statement import Statement
from kernfarm import claims, contents, records, verify_attached
from kernfarm.contents import Check, Contents
from kernfarm.verify_attached import Found
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import ImageSource

_DOCUMENTS = ((statement.PROVENANCE, "provenance"), (statement.SPDX, "SBOM"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`image` is the digest of the index, `builder` who built it by its provenance ("" when that is not vouched for)."""

    source: str
    image: str
    builder: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


@dataclass(slots=True, kw_only=True)
class _Session:
    source: ImageSource
    key: VerifyKey
    checks: list[Check] = field(default_factory=list)

    def check(self, name: str, where: str, look: Callable[[], None]) -> bool:
        """One line of the report. Whatever a place answers that is no answer is that line's problem."""
        try:
            look()
        except FarmError as error:
            self.checks.append(Check(name=name, where=error.problem.where or where, problem=error.problem))
            return False
        self.checks.append(Check(name=name, where=where))
        return True

    def fail(self, name: str, where: str, message: str) -> None:
        self.checks.append(Check(name=name, where=where, problem=Problem(code=Code.BAD_SIGNATURE, message=message)))


def verify(source: ImageSource, key: VerifyKey, *, builder: str = "", booted: bool = False) -> Report:
    """Check all of it. Never raises for what is wrong with the image.

    `builder`: the id that the provenance has to name, "" for any; `booted`: whether it has to say that the farm booted the image."""
    session = _Session(source=source, key=key)
    index = _index(session)
    if index is None:
        return Report(source=source.name, image=source.image, builder="", checks=tuple(session.checks))
    digest = digests.of_bytes(index)
    found = contents.inspect(index, source.blob) if _signatures(session, digest, "index") else None
    if found is None:
        session.fail("contents", digest, "not looked at: nothing vouches for this index")
    else:
        session.checks += found.checks
        for manifest, _, platform in found.manifests:
            _signatures(session, manifest, platform)
    if found is not None:
        session.check("nothing else", digest, lambda: verify_attached.check_nothing_else(source, index))
    statements = _statements(session, digest)
    who = _claims(session, statements, found, builder)
    if found is not None:
        for path in source.records():
            session.check("result record", path.name, partial(_record, path, statements[statement.PROVENANCE], index, found))
    for made in statements[statement.PROVENANCE] if booted else ():
        session.check("booted", "provenance", partial(claims.check_booted, made))
    session.check("referrers", digest, lambda: _referrers(source, digest))
    return Report(source=source.name, image=digest, builder=who, checks=tuple(session.checks))


def _index(session: _Session) -> bytes | None:
    reference = session.source.image
    read: list[bytes] = []

    def look() -> None:
        data = session.source.manifest(reference)
        if digests.is_digest(reference) and digests.of_bytes(data) != reference:
            raise FarmError(
                Code.BAD_DIGEST, f"{reference} is damaged: its content has the digest {digests.of_bytes(data)}", where=reference
            )
        read.append(data)

    session.check("index digest", reference, look)
    return read[0] if read else None


def _signatures(session: _Session, digest: str, what: str) -> bool:
    """Both forms have to be there and hold. Returns whether one of them vouches for the digest."""
    source, key = session.source, session.key

    def bundle() -> None:
        verify_attached.signed(verify_attached.bundles(source, digest), statement.COSIGN_SIGNATURE, "signature", digest, key)

    tagged = session.check("signature", what, lambda: verify_attached.check_tag_signature(source, digest, key))
    return session.check("signature bundle", what, bundle) or tagged


def _statements(session: _Session, digest: str) -> dict[str, list[Statement]]:
    """The signed documents by predicate type; each has to be there in both forms."""
    places: tuple[tuple[str, Callable[[], Found]], ...] = (
        ("bundle", lambda: verify_attached.bundles(session.source, digest)),
        ("tag", lambda: verify_attached.attestations(session.source, digest)),
    )
    good: dict[str, list[Statement]] = {kind: [] for kind, _ in _DOCUMENTS}
    for kind, what in _DOCUMENTS:
        for form, open_place in places:

            def look(kind: str = kind, what: str = what, open_place: Callable[[], Found] = open_place) -> None:
                for each in verify_attached.signed(open_place(), kind, what, digest, session.key):
                    if each not in good[kind]:
                        good[kind].append(each)

            session.check(f"{what} {form}", "index", look)
    return good


def _claims(session: _Session, statements: dict[str, list[Statement]], found: Contents | None, builder: str) -> str:
    """What the documents say, held against what is there; each against the platforms that it is about. Returns the builder's id."""
    who = ""
    for made in statements[statement.PROVENANCE]:
        session.check("builder", "provenance", partial(claims.check_builder, made, builder))
        who = claims.builder_of(made)
        if found is not None:
            part = found.part(made.digests())
            for name, look in claims.PROVENANCE_CHECKS.items():
                session.check(name, "provenance", partial(look, made, part))
    for made in statements[statement.SPDX]:
        if found is not None:
            part = found.part(made.digests())
            session.check("SBOM files", "SBOM", partial(claims.check_sbom, made, part))
    if found is not None:
        for kind, what in _DOCUMENTS:
            session.check(f"{what} of all", "index", partial(claims.check_all, statements[kind], what, found))
    return who


def _record(path: Path, made: Sequence[Statement], index: bytes, found: Contents) -> None:
    """A record says what the provenance of its build does, and leads to the index that this build made."""
    record = records.read(path)
    mine = claims.check_record(record, made)
    part = {digest for digest, _, _ in found.part(mine.digests()).manifests}
    own = found.index
    if len(part) < len(found.manifests):
        try:
            own = oci.index_of([entry for entry in json.loads(index)["manifests"] if entry["digest"] in part]).digest
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise FarmError(Code.BAD_ARCHIVE, f"the image's index is not one of builds: {error!r}", where=found.index) from error
    if record.index != own:
        raise FarmError(Code.BAD_DIGEST, f"the record leads to the index {record.index}, its build has made {own}", where=path.name)


def _referrers(source: ImageSource, digest: str) -> None:
    verify_attached.check_referrers_index(source, digest)
