"""The steps of a build as values: what a worker is asked (tasks) and what it answers (results).

A task holds only content (digests, words), never paths or times, so that its digest names the work: two tasks with one
digest are the same work, and a finished one need not be done again. All digests are blobs in the blob store.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kernel.spec import ConfigSpec, NamedBlob, SourceSpec


class StepKind(StrEnum):
    """The kinds of step, in the order a build goes through them."""

    SOURCE = "source"
    PATCH = "patch"
    CONFIGURE = "configure"
    PREPARE = "prepare"
    COMPILE = "compile"
    LINK = "link"
    PACKAGE = "package"
    BOOT = "boot"
    SIGN = "sign"


ORDER = {kind: index for index, kind in enumerate(StepKind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A kernel source tree: the digest of its tarball as fetched, and of the upper layer that the patches made ("" for none)."""

    tarball: str
    upper: str = ""
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """Where the tree came from, for kernel-source-info and provenance; `patches` are filled in for the package step."""

    url: str
    resolved: str
    sha256: str
    signer: str = ""
    patches: tuple[NamedBlob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an attempt cost. Seconds; bytes; `cpu_*` from cgroup accounting of the sandbox alone; ccache as its gateway saw it."""

    wall_seconds: float = 0.0
    cpu_user_seconds: float = 0.0
    cpu_system_seconds: float = 0.0
    peak_memory_bytes: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    cache_errors: int = 0
    cache_saved_seconds: float = 0.0
    bytes_fetched: int = 0
    bytes_stored: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTask:
    """Fetch and verify a tree."""

    source: SourceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceResult:
    tree: Tree
    facts: SourceFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchTask:
    """Patches on top of a tree as it was fetched, in order. Builds without patches have no such step."""

    tree: Tree
    patches: tuple[NamedBlob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchResult:
    tree: Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigureTask:
    """base + fragments -> olddefconfig -> check that each asked symbol stuck."""

    tree: Tree
    arch: str
    flavour: str
    toolchain: str
    config: ConfigSpec
    local_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigureResult:
    """`config` is the digest of the final .config."""

    config: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareTask:
    """`make prepare modules_prepare`, and the inventory of what there is to compile."""

    tree: Tree
    arch: str
    toolchain: str
    config: str
    domain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """`layer` is the prepared layer; `inventory` a kernel.plan.Inventory as canonical JSON; `compiler` its --version line;
    `compiled` counts compiler and assembler runs as CompileResult does; `randstruct_seed` is "" where the configuration needs none."""

    layer: str
    inventory: str
    release: str
    compiler: str
    compiled: int
    randstruct_seed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileTask:
    """One shard: kbuild goals (`dir/` or `path/foo.o`) on top of the prepared layer; `objects` is how many it should compile."""

    tree: Tree
    arch: str
    toolchain: str
    prepared: str
    domain: str
    goals: tuple[str, ...]
    objects: int
    weight_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileResult:
    """`layer` holds every file the shard made; `compiled` is how many compiler and assembler runs make announced."""

    layer: str
    compiled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTask:
    """The ordinary `make bzImage modules` on top of the prepared layer and all shards."""

    tree: Tree
    arch: str
    toolchain: str
    prepared: str
    inventory: str
    shards: tuple[str, ...]
    domain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkResult:
    """`layer`: kernel image, vmlinux, System.map, modules and what packaging needs. `compiled`: compiler runs of the link step;
    `unplanned`: those among them that a shard should have covered (a bug when not empty)."""

    layer: str
    compiled: int
    unplanned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageTask:
    """Image files and the OCI image. `record` is everything of the build that goes into kernel-source-info."""

    tree: Tree
    arch: str
    flavour: str
    toolchain: str
    config: str
    prepared: str
    linked: str
    release: str
    outputs: tuple[str, ...]
    facts: SourceFacts
    compiler: str
    vmlinux: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file a user wants. `digest` and `size` (bytes) of its content."""

    name: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An OCI image in the blob store: `index` is the digest of its index; `blobs` all digests a layout needs, index included."""

    name: str
    index: str
    manifest: str
    platform: str
    blobs: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageResult:
    artifacts: tuple[Artifact, ...]
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BootTask:
    """Boot an image's `kernel` with the modules of its `modules` (kernel.tar), and see user space say `release`."""

    arch: str
    kernel: str
    modules: str
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BootResult:
    """`release` is what the booted kernel says of itself, `loaded` the modules of the image that were loaded in it."""

    release: str
    loaded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignTask:
    """Sign what a build made. Named by the build, since what is signed says of which build it is."""

    build_id: str
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A manifest beside an image, about the manifest or index `subject`: a signature, provenance, an SBOM. `tag` names it in the
    repository ("": found by its subject only); `blobs` are its config and layers."""

    tag: str
    subject: str
    media_type: str
    artifact_type: str
    manifest: Artifact
    blobs: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignResult:
    """What was signed of a build's images. `record`: digest of the result record that provenance names."""

    attachments: tuple[Attachment, ...]
    record: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIndex:
    """An index over the images of several builds, one for each architecture, and what was signed of it. No step makes it: which builds
    belong together is known when somebody fetches them together."""

    index: Artifact
    attachments: tuple[Attachment, ...]


Task = SourceTask | PatchTask | ConfigureTask | PrepareTask | CompileTask | LinkTask | PackageTask | BootTask | SignTask
Result = SourceResult | PatchResult | ConfigureResult | PrepareResult | CompileResult | LinkResult | PackageResult | BootResult | SignResult

TASKS: dict[StepKind, type[Task]] = {
    StepKind.SOURCE: SourceTask,
    StepKind.PATCH: PatchTask,
    StepKind.CONFIGURE: ConfigureTask,
    StepKind.PREPARE: PrepareTask,
    StepKind.COMPILE: CompileTask,
    StepKind.LINK: LinkTask,
    StepKind.PACKAGE: PackageTask,
    StepKind.BOOT: BootTask,
    StepKind.SIGN: SignTask,
}
RESULTS: dict[StepKind, type[Result]] = {
    StepKind.SOURCE: SourceResult,
    StepKind.PATCH: PatchResult,
    StepKind.CONFIGURE: ConfigureResult,
    StepKind.PREPARE: PrepareResult,
    StepKind.COMPILE: CompileResult,
    StepKind.LINK: LinkResult,
    StepKind.PACKAGE: PackageResult,
    StepKind.BOOT: BootResult,
    StepKind.SIGN: SignResult,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an attempt is: objects announced by make so far, and the last thing it said it does."""

    objects: int = 0
    doing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of a step on one worker: what goes over the wire to it. `jobs` is make's -j; limits are hard: seconds, bytes,
    processors (0: none)."""

    attempt_id: str
    build_id: str
    kind: StepKind
    task: Task
    domain: str
    jobs: int
    timeout_seconds: float
    memory_bytes: int = 0
    heartbeat_seconds: float = 2.0
    cpus: float = 0.0
