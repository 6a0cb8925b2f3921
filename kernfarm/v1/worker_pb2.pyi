from kernfarm.v1 import build_service_pb2 as _build_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tree(_message.Message):
    __slots__ = ("tarball", "upper", "version")
    TARBALL_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    tarball: str
    upper: str
    version: str
    def __init__(self, tarball: _Optional[str] = ..., upper: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class SourceFacts(_message.Message):
    __slots__ = ("url", "resolved", "sha256", "signer", "patches")
    URL_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    url: str
    resolved: str
    sha256: str
    signer: str
    patches: _containers.RepeatedCompositeFieldContainer[_build_service_pb2.NamedBlob]
    def __init__(self, url: _Optional[str] = ..., resolved: _Optional[str] = ..., sha256: _Optional[str] = ..., signer: _Optional[str] = ..., patches: _Optional[_Iterable[_Union[_build_service_pb2.NamedBlob, _Mapping]]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("wall_seconds", "cpu_user_seconds", "cpu_system_seconds", "peak_memory_bytes", "cache_hits", "cache_misses", "cache_errors", "cache_saved_seconds", "bytes_fetched", "bytes_stored")
    WALL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPU_USER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPU_SYSTEM_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    CACHE_MISSES_FIELD_NUMBER: _ClassVar[int]
    CACHE_ERRORS_FIELD_NUMBER: _ClassVar[int]
    CACHE_SAVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FETCHED_FIELD_NUMBER: _ClassVar[int]
    BYTES_STORED_FIELD_NUMBER: _ClassVar[int]
    wall_seconds: float
    cpu_user_seconds: float
    cpu_system_seconds: float
    peak_memory_bytes: int
    cache_hits: int
    cache_misses: int
    cache_errors: int
    cache_saved_seconds: float
    bytes_fetched: int
    bytes_stored: int
    def __init__(self, wall_seconds: _Optional[float] = ..., cpu_user_seconds: _Optional[float] = ..., cpu_system_seconds: _Optional[float] = ..., peak_memory_bytes: _Optional[int] = ..., cache_hits: _Optional[int] = ..., cache_misses: _Optional[int] = ..., cache_errors: _Optional[int] = ..., cache_saved_seconds: _Optional[float] = ..., bytes_fetched: _Optional[int] = ..., bytes_stored: _Optional[int] = ...) -> None: ...

class SourceTask(_message.Message):
    __slots__ = ("source",)
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    source: _build_service_pb2.Source
    def __init__(self, source: _Optional[_Union[_build_service_pb2.Source, _Mapping]] = ...) -> None: ...

class SourceResult(_message.Message):
    __slots__ = ("tree", "facts")
    TREE_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    tree: Tree
    facts: SourceFacts
    def __init__(self, tree: _Optional[_Union[Tree, _Mapping]] = ..., facts: _Optional[_Union[SourceFacts, _Mapping]] = ...) -> None: ...

class PatchTask(_message.Message):
    __slots__ = ("tree", "patches")
    TREE_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    tree: Tree
    patches: _containers.RepeatedCompositeFieldContainer[_build_service_pb2.NamedBlob]
    def __init__(self, tree: _Optional[_Union[Tree, _Mapping]] = ..., patches: _Optional[_Iterable[_Union[_build_service_pb2.NamedBlob, _Mapping]]] = ...) -> None: ...

class PatchResult(_message.Message):
    __slots__ = ("tree",)
    TREE_FIELD_NUMBER: _ClassVar[int]
    tree: Tree
    def __init__(self, tree: _Optional[_Union[Tree, _Mapping]] = ...) -> None: ...

class ConfigureTask(_message.Message):
    __slots__ = ("tree", "arch", "flavour", "toolchain", "config", "local_version")
    TREE_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    FLAVOUR_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAIN_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    LOCAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    tree: Tree
    arch: str
    flavour: str
    toolchain: str
    config: _build_service_pb2.Config
    local_version: str
    def __init__(self, tree: _Optional[_Union[Tree, _Mapping]] = ..., arch: _Optional[str] = ..., flavour: _Optional[str] = ..., toolchain: _Optional[str] = ..., config: _Optional[_Union[_build_service_pb2.Config, _Mapping]] = ..., local_version: _Optional[str] = ...) -> None: ...

class ConfigureResult(_message.Message):
    __slots__ = ("config", "warnings")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    config: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, config: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class PrepareTask(_message.Message):
    __slots__ = ("tree", "arch", "toolchain", "config", "domain")
    TREE_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAIN_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    tree: Tree
    arch: str
    toolchain: str
    config: str
    domain: str
    def __init__(self, tree: _Optional[_Union[Tree, _Mapping]] = ..., arch: _Optional[str] = ..., toolchain: _Optional[str] = ..., config: _Optional[str] = ..., domain: _Optional[str] = ...) -> None: ...

class PrepareResult(_message.Message):
    __slots__ = ("layer", "inventory", "release", "compiler", "compiled", "randstruct_seed")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    COMPILER_FIELD_NUMBER: _ClassVar[int]
    COMPILED_FIELD_NUMBER: _ClassVar[int]
    RANDSTRUCT_SEED_FIELD_NUMBER: _ClassVar[int]
    layer: str
    inventory: str
    release: str
    compiler: str
    compiled: int
    randstruct_seed: str
    def __init__(self, layer: _Optional[str] = ..., inventory: _Optional[str] = ..., release: _Optional[str] = ..., compiler: _Optional[str] = ..., compiled: _Optional[int] = ..., randstruct_seed: _Optional[str] = ...) -> None: ...

class CompileTask(_message.Message):
    __slots__ = ("tree", "arch", "toolchain", "prepared", "domain", "goals", "objects", "weight_seconds")
    TREE_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAIN_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    GOALS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    tree: Tree
    arch: str
    toolchain: str
    prepared: str
    domain: str
    goals: _containers.RepeatedScalarFieldContainer[str]
    objects: int
    weight_seconds: float
    def __init__(self, tree: _Optional[_Union[Tree, _Mapping]] = ..., arch: _Optional[str] = ..., toolchain: _Optional[str] = ..., prepared: _Optional[str] = ..., domain: _Optional[str] = ..., goals: _Optional[_Iterable[str]] = ..., objects: _Optional[int] = ..., weight_seconds: _Optional[float] = ...) -> None: ...

class CompileResult(_message.Message):
    __slots__ = ("layer", "compiled")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    COMPILED_FIELD_NUMBER: _ClassVar[int]
    layer: str
    compiled: int
    def __init__(self, layer: _Optional[str] = ..., compiled: _Optional[int] = ...) -> None: ...

class LinkTask(_message.Message):
    __slots__ = ("tree", "arch", "toolchain", "prepared", "inventory", "shards", "domain")
    TREE_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAIN_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    tree: Tree
    arch: str
    toolchain: str
    prepared: str
    inventory: str
    shards: _containers.RepeatedScalarFieldContainer[str]
    domain: str
    def __init__(self, tree: _Optional[_Union[Tree, _Mapping]] = ..., arch: _Optional[str] = ..., toolchain: _Optional[str] = ..., prepared: _Optional[str] = ..., inventory: _Optional[str] = ..., shards: _Optional[_Iterable[str]] = ..., domain: _Optional[str] = ...) -> None: ...

class LinkResult(_message.Message):
    __slots__ = ("layer", "compiled", "unplanned")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    COMPILED_FIELD_NUMBER: _ClassVar[int]
    UNPLANNED_FIELD_NUMBER: _ClassVar[int]
    layer: str
    compiled: int
    unplanned: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, layer: _Optional[str] = ..., compiled: _Optional[int] = ..., unplanned: _Optional[_Iterable[str]] = ...) -> None: ...

class PackageTask(_message.Message):
    __slots__ = ("tree", "arch", "flavour", "toolchain", "config", "prepared", "linked", "release", "outputs", "facts", "compiler", "vmlinux")
    TREE_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    FLAVOUR_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAIN_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    LINKED_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    COMPILER_FIELD_NUMBER: _ClassVar[int]
    VMLINUX_FIELD_NUMBER: _ClassVar[int]
    tree: Tree
    arch: str
    flavour: str
    toolchain: str
    config: str
    prepared: str
    linked: str
    release: str
    outputs: _containers.RepeatedScalarFieldContainer[str]
    facts: SourceFacts
    compiler: str
    vmlinux: bool
    def __init__(self, tree: _Optional[_Union[Tree, _Mapping]] = ..., arch: _Optional[str] = ..., flavour: _Optional[str] = ..., toolchain: _Optional[str] = ..., config: _Optional[str] = ..., prepared: _Optional[str] = ..., linked: _Optional[str] = ..., release: _Optional[str] = ..., outputs: _Optional[_Iterable[str]] = ..., facts: _Optional[_Union[SourceFacts, _Mapping]] = ..., compiler: _Optional[str] = ..., vmlinux: _Optional[bool] = ...) -> None: ...

class PackageResult(_message.Message):
    __slots__ = ("artifacts", "images")
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    artifacts: _containers.RepeatedCompositeFieldContainer[_build_service_pb2.Artifact]
    images: _containers.RepeatedCompositeFieldContainer[_build_service_pb2.Image]
    def __init__(self, artifacts: _Optional[_Iterable[_Union[_build_service_pb2.Artifact, _Mapping]]] = ..., images: _Optional[_Iterable[_Union[_build_service_pb2.Image, _Mapping]]] = ...) -> None: ...

class BootTask(_message.Message):
    __slots__ = ("arch", "kernel", "modules", "release")
    ARCH_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    arch: str
    kernel: str
    modules: str
    release: str
    def __init__(self, arch: _Optional[str] = ..., kernel: _Optional[str] = ..., modules: _Optional[str] = ..., release: _Optional[str] = ...) -> None: ...

class BootResult(_message.Message):
    __slots__ = ("release", "loaded")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    release: str
    loaded: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, release: _Optional[str] = ..., loaded: _Optional[_Iterable[str]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("attempt_id", "build_id", "domain", "jobs", "timeout_seconds", "memory_bytes", "heartbeat_seconds", "cpus", "source", "configure", "prepare", "compile", "link", "package", "patch", "boot")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CONFIGURE_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    COMPILE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    build_id: str
    domain: str
    jobs: int
    timeout_seconds: float
    memory_bytes: int
    heartbeat_seconds: float
    cpus: float
    source: SourceTask
    configure: ConfigureTask
    prepare: PrepareTask
    compile: CompileTask
    link: LinkTask
    package: PackageTask
    patch: PatchTask
    boot: BootTask
    def __init__(self, attempt_id: _Optional[str] = ..., build_id: _Optional[str] = ..., domain: _Optional[str] = ..., jobs: _Optional[int] = ..., timeout_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., heartbeat_seconds: _Optional[float] = ..., cpus: _Optional[float] = ..., source: _Optional[_Union[SourceTask, _Mapping]] = ..., configure: _Optional[_Union[ConfigureTask, _Mapping]] = ..., prepare: _Optional[_Union[PrepareTask, _Mapping]] = ..., compile: _Optional[_Union[CompileTask, _Mapping]] = ..., link: _Optional[_Union[LinkTask, _Mapping]] = ..., package: _Optional[_Union[PackageTask, _Mapping]] = ..., patch: _Optional[_Union[PatchTask, _Mapping]] = ..., boot: _Optional[_Union[BootTask, _Mapping]] = ...) -> None: ...

class AttemptEvent(_message.Message):
    __slots__ = ("heard", "log", "finished", "failed")
    HEARD_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    heard: Heard
    log: bytes
    finished: Finished
    failed: Failed
    def __init__(self, heard: _Optional[_Union[Heard, _Mapping]] = ..., log: _Optional[bytes] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ...) -> None: ...

class Heard(_message.Message):
    __slots__ = ("objects", "doing")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    DOING_FIELD_NUMBER: _ClassVar[int]
    objects: int
    doing: str
    def __init__(self, objects: _Optional[int] = ..., doing: _Optional[str] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("usage", "source", "configure", "prepare", "compile", "link", "package", "patch", "boot")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CONFIGURE_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    COMPILE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    usage: Usage
    source: SourceResult
    configure: ConfigureResult
    prepare: PrepareResult
    compile: CompileResult
    link: LinkResult
    package: PackageResult
    patch: PatchResult
    boot: BootResult
    def __init__(self, usage: _Optional[_Union[Usage, _Mapping]] = ..., source: _Optional[_Union[SourceResult, _Mapping]] = ..., configure: _Optional[_Union[ConfigureResult, _Mapping]] = ..., prepare: _Optional[_Union[PrepareResult, _Mapping]] = ..., compile: _Optional[_Union[CompileResult, _Mapping]] = ..., link: _Optional[_Union[LinkResult, _Mapping]] = ..., package: _Optional[_Union[PackageResult, _Mapping]] = ..., patch: _Optional[_Union[PatchResult, _Mapping]] = ..., boot: _Optional[_Union[BootResult, _Mapping]] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("usage", "problem")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    usage: Usage
    problem: _build_service_pb2.Problem
    def __init__(self, usage: _Optional[_Union[Usage, _Mapping]] = ..., problem: _Optional[_Union[_build_service_pb2.Problem, _Mapping]] = ...) -> None: ...

class WorkerFacts(_message.Message):
    __slots__ = ("name", "arches", "toolchains", "slots", "jobs", "memory_bytes", "sandbox", "cgroup", "ccache", "boots", "builds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARCHES_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAINS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    CCACHE_FIELD_NUMBER: _ClassVar[int]
    BOOTS_FIELD_NUMBER: _ClassVar[int]
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    arches: _containers.RepeatedScalarFieldContainer[str]
    toolchains: _containers.RepeatedScalarFieldContainer[str]
    slots: int
    jobs: int
    memory_bytes: int
    sandbox: str
    cgroup: str
    ccache: str
    boots: _containers.RepeatedScalarFieldContainer[str]
    builds: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., arches: _Optional[_Iterable[str]] = ..., toolchains: _Optional[_Iterable[str]] = ..., slots: _Optional[int] = ..., jobs: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., sandbox: _Optional[str] = ..., cgroup: _Optional[str] = ..., ccache: _Optional[str] = ..., boots: _Optional[_Iterable[str]] = ..., builds: _Optional[_Iterable[str]] = ...) -> None: ...
