"""A finished build without a farm: a real journal, a real blob store, and an image in it whose files say what real ones say."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.events import Event, Launched, NewBuild, Planned, Submitted, Succeeded
from coordinator.journal import Journal
from coordinator.machine import Machine
from coordinator.state import Build
from kernel import digest as digests
from kernel import oci
from kernel.plan import Shard
from kernel.spec import BuildSpec, ConfigSpec, NamedBlob, SourceKind, SourceSpec
from kernel.steps import (
    Artifact,
    BootResult,
    CompileResult,
    ConfigureResult,
    Image,
    LinkResult,
    PackageResult,
    PackageTask,
    PatchResult,
    PrepareResult,
    Result,
    SignResult,
    SourceFacts,
    SourceResult,
    StepKind,
    Tree,
    Usage,
)
from kernfarm.blobs import BlobStore
from worker.steps.package import source_info

CONFIG = b"CONFIG_MODULES=y\n"
RELEASE = "6.1.999-linuxkit"
SHA256 = digests.of_bytes(b"linux-6.1.999.tar.xz").removeprefix("sha256:")
COMPILER = "gcc-12 (Debian 12.2.0) 12.2.0"
_LAYERS = (("kernel", "System.map", "kernel_config", "kernel-source-info", "kernel.tar"), ("kernel-dev.tar",))


def layer(files: Mapping[str, bytes]) -> tuple[bytes, oci.Layer]:
    """A layer of regular files, packed as the package step packs it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    packed = gzip.compress(raw.getvalue(), mtime=0)
    made = oci.Layer(digest=digests.of_bytes(packed), size=len(packed), diff_id=digests.of_bytes(raw.getvalue()), holds="files")
    return packed, made


@dataclass(slots=True)
class FakeBuild:
    """`play` lets a build get as far as asked. What it makes can be replaced before: `files` of the image, `packaged` as a whole."""

    home: Path
    build_id: str = "20260101-000000-abcdef"
    boot: bool = True
    platform: str = "linux/amd64"
    files: dict[str, bytes] = field(default_factory=dict)
    patches: tuple[NamedBlob, ...] = ()
    source_sha256: str = SHA256
    blobs: BlobStore = field(init=False)
    spec: BuildSpec = field(init=False)
    packaged: PackageResult = field(init=False)
    _machine: Machine = field(init=False)
    _clock: float = 1_700_000_000.0

    def __post_init__(self) -> None:
        self.blobs = BlobStore.open(f"file://{self.home}/blobs")
        self._machine = Machine(source_ttl_seconds=0.0)
        if not self.patches:
            self.patches = (NamedBlob(name="0001-fix.patch", digest=self.blobs.put_bytes(b"a patch")),)
        self.spec = BuildSpec(
            source=SourceSpec(kind=SourceKind.KERNEL_ORG, ref="6.1.999"),
            arch=self.arch,
            flavour="plain",
            config=ConfigSpec(),
            patches=self.patches,
            toolchain="gcc-12",
            outputs=("kernel",),
            local_version="-linuxkit",
            domain="t",
        )
        self.files = {**self._files(), **self.files}
        self.packaged = self._package()

    @property
    def arch(self) -> str:
        return {"linux/amd64": "x86_64", "linux/arm64": "arm64"}[self.platform]

    @property
    def state(self) -> Build:
        """The build as a coordinator has it."""
        return self._machine.builds[self.build_id]

    @property
    def journal_url(self) -> str:
        return f"sqlite:///{self.home}/journal.sqlite"

    @property
    def image(self) -> Image:
        return self.packaged.images[0]

    def blob_file(self, digest: str) -> Path:
        """Where the store keeps a blob."""
        name = digest.removeprefix("sha256:")
        return self.home / "blobs" / "blobs" / name[:2] / name[2:]

    def play(self, until: StepKind = StepKind.BOOT) -> Journal:
        """Write the journal of a build whose steps up to `until` have succeeded; returns the open journal."""
        journal = Journal(self.journal_url)
        new = NewBuild(build_id=self.build_id, spec=self.spec, boot=self.boot, sign=True)
        self.record(journal, Submitted(at=self._clock, tenant="t", request_id="", fingerprint="", answered=(self.build_id,), builds=(new,)))
        kinds = [kind for kind in StepKind if kind is not StepKind.SIGN and (self.boot or kind is not StepKind.BOOT)]
        for kind in kinds[: kinds.index(until) + 1]:
            self._step(journal, kind)
        return journal

    def sign(self, journal: Journal, result: SignResult) -> None:
        """The build ends: the signer has signed it."""
        self._step(journal, StepKind.SIGN, result)

    def record(self, journal: Journal, *events: Event) -> None:
        for event in events:
            self._machine.apply(event)
        journal.append(events)

    def _step(self, journal: Journal, kind: StepKind, result: Result | None = None) -> None:
        step = next(step for step in self._machine.builds[self.build_id].steps.values() if step.kind is kind)
        attempt = f"{self.build_id}/{step.key}/1"
        self._clock += 10
        launched = Launched(
            at=self._clock, build_id=self.build_id, step=step.key, attempt_id=attempt, worker_id="w", worker_name="worker-1"
        )
        done = Succeeded(at=self._clock + 5, attempt_id=attempt, result=result or self.result(kind), usage=Usage(wall_seconds=5.0))
        self.record(journal, launched, done)
        if kind is StepKind.PREPARE:
            shard = Shard(goals=("kernel/",), objects=1, weight_seconds=1.0)
            self.record(journal, Planned(at=self._clock + 6, build_id=self.build_id, shards=(shard,), covered=1, link_only=0))

    def result(self, kind: StepKind) -> Result:
        put = self.blobs.put_bytes
        tree = Tree(tarball=put(b"the source"), version="6.1.999")
        match kind:
            case StepKind.SOURCE:
                return SourceResult(tree=tree, facts=self._facts())
            case StepKind.PATCH:
                return PatchResult(tree=Tree(tarball=tree.tarball, upper=put(b"upper"), version=tree.version))
            case StepKind.CONFIGURE:
                return ConfigureResult(config=put(CONFIG))
            case StepKind.PREPARE:
                return PrepareResult(layer=put(b"prepared"), inventory=put(b"{}"), release=RELEASE, compiler=COMPILER, compiled=1)
            case StepKind.COMPILE:
                return CompileResult(layer=put(b"shard"), compiled=1)
            case StepKind.LINK:
                return LinkResult(layer=put(b"linked"), compiled=1)
            case StepKind.PACKAGE:
                return self.packaged
            case StepKind.BOOT:
                return BootResult(release=RELEASE)
            case StepKind.SIGN:
                raise AssertionError("the signer's")

    def _facts(self) -> SourceFacts:
        return SourceFacts(url="https://example.org/linux-6.1.999.tar.xz", resolved="6.1.999", sha256=self.source_sha256, signer="A" * 40)

    def _files(self) -> dict[str, bytes]:
        facts = self._facts()
        task = PackageTask(
            tree=Tree(tarball=digests.of_bytes(b"the source"), version="6.1.999"),
            arch=self.arch,
            flavour="plain",
            toolchain="gcc-12",
            config=digests.of_bytes(CONFIG),
            prepared="",
            linked="",
            release=RELEASE,
            outputs=("kernel",),
            facts=SourceFacts(url=facts.url, resolved=facts.resolved, sha256=SHA256, signer=facts.signer, patches=self.patches),
            compiler=COMPILER,
        )
        return {
            "kernel": b"a kernel" * 1000,
            "kernel.tar": b"modules",
            "System.map": b"ffff T start\n",
            "kernel_config": CONFIG,
            "kernel-source-info": source_info(task).encode(),
            "kernel-dev.tar": b"headers" * 1000,
        }

    def _package(self) -> PackageResult:
        packed = [layer({name: self.files[name] for name in names}) for names in _LAYERS]
        spec = oci.ImageSpec(platform=self.platform, layers=tuple(made for _, made in packed), labels={"a": "b"})
        documents = {"config": oci.config(spec), "manifest": oci.manifest(spec), "index": oci.index([spec])}
        data = {f"layer-{number}": content for number, (content, _) in enumerate(packed)}
        data |= {name: each.data for name, each in documents.items()}
        blobs = tuple(self._put(name, content) for name, content in data.items())
        image = Image(
            name="kernel",
            index=documents["index"].digest,
            manifest=documents["manifest"].digest,
            platform=self.platform,
            blobs=blobs,
        )
        return PackageResult(artifacts=tuple(self._put(name, content) for name, content in self.files.items()), images=(image,))

    def _put(self, name: str, data: bytes) -> Artifact:
        return Artifact(name=name, digest=self.blobs.put_bytes(data), size=len(data))
