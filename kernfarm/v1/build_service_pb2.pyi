import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_QUEUED: _ClassVar[State]
    STATE_WAITING: _ClassVar[State]
    STATE_READY: _ClassVar[State]
    STATE_RUNNING: _ClassVar[State]
    STATE_SUCCEEDED: _ClassVar[State]
    STATE_FAILED: _ClassVar[State]
    STATE_CANCELLED: _ClassVar[State]
STATE_UNSPECIFIED: State
STATE_QUEUED: State
STATE_WAITING: State
STATE_READY: State
STATE_RUNNING: State
STATE_SUCCEEDED: State
STATE_FAILED: State
STATE_CANCELLED: State

class NamedBlob(_message.Message):
    __slots__ = ("name", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("kind", "ref", "digest")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    kind: str
    ref: str
    digest: str
    def __init__(self, kind: _Optional[str] = ..., ref: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class Config(_message.Message):
    __slots__ = ("base", "file", "fragments", "base_fragments")
    BASE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    FRAGMENTS_FIELD_NUMBER: _ClassVar[int]
    BASE_FRAGMENTS_FIELD_NUMBER: _ClassVar[int]
    base: str
    file: NamedBlob
    fragments: _containers.RepeatedCompositeFieldContainer[NamedBlob]
    base_fragments: _containers.RepeatedCompositeFieldContainer[NamedBlob]
    def __init__(self, base: _Optional[str] = ..., file: _Optional[_Union[NamedBlob, _Mapping]] = ..., fragments: _Optional[_Iterable[_Union[NamedBlob, _Mapping]]] = ..., base_fragments: _Optional[_Iterable[_Union[NamedBlob, _Mapping]]] = ...) -> None: ...

class ArchConfig(_message.Message):
    __slots__ = ("arch", "fragments", "base_fragments")
    ARCH_FIELD_NUMBER: _ClassVar[int]
    FRAGMENTS_FIELD_NUMBER: _ClassVar[int]
    BASE_FRAGMENTS_FIELD_NUMBER: _ClassVar[int]
    arch: str
    fragments: _containers.RepeatedCompositeFieldContainer[NamedBlob]
    base_fragments: _containers.RepeatedCompositeFieldContainer[NamedBlob]
    def __init__(self, arch: _Optional[str] = ..., fragments: _Optional[_Iterable[_Union[NamedBlob, _Mapping]]] = ..., base_fragments: _Optional[_Iterable[_Union[NamedBlob, _Mapping]]] = ...) -> None: ...

class OwnFlavour(_message.Message):
    __slots__ = ("name", "suffix", "extends", "fragments", "patches")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUFFIX_FIELD_NUMBER: _ClassVar[int]
    EXTENDS_FIELD_NUMBER: _ClassVar[int]
    FRAGMENTS_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    name: str
    suffix: str
    extends: str
    fragments: _containers.RepeatedCompositeFieldContainer[NamedBlob]
    patches: _containers.RepeatedCompositeFieldContainer[NamedBlob]
    def __init__(self, name: _Optional[str] = ..., suffix: _Optional[str] = ..., extends: _Optional[str] = ..., fragments: _Optional[_Iterable[_Union[NamedBlob, _Mapping]]] = ..., patches: _Optional[_Iterable[_Union[NamedBlob, _Mapping]]] = ...) -> None: ...

class RequestSpec(_message.Message):
    __slots__ = ("source", "arches", "flavours", "config", "patches", "toolchain", "outputs", "local_version", "skip_boot", "arch_configs", "own_flavours")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ARCHES_FIELD_NUMBER: _ClassVar[int]
    FLAVOURS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAIN_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SKIP_BOOT_FIELD_NUMBER: _ClassVar[int]
    ARCH_CONFIGS_FIELD_NUMBER: _ClassVar[int]
    OWN_FLAVOURS_FIELD_NUMBER: _ClassVar[int]
    source: Source
    arches: _containers.RepeatedScalarFieldContainer[str]
    flavours: _containers.RepeatedScalarFieldContainer[str]
    config: Config
    patches: _containers.RepeatedCompositeFieldContainer[NamedBlob]
    toolchain: str
    outputs: _containers.RepeatedScalarFieldContainer[str]
    local_version: str
    skip_boot: bool
    arch_configs: _containers.RepeatedCompositeFieldContainer[ArchConfig]
    own_flavours: _containers.RepeatedCompositeFieldContainer[OwnFlavour]
    def __init__(self, source: _Optional[_Union[Source, _Mapping]] = ..., arches: _Optional[_Iterable[str]] = ..., flavours: _Optional[_Iterable[str]] = ..., config: _Optional[_Union[Config, _Mapping]] = ..., patches: _Optional[_Iterable[_Union[NamedBlob, _Mapping]]] = ..., toolchain: _Optional[str] = ..., outputs: _Optional[_Iterable[str]] = ..., local_version: _Optional[str] = ..., skip_boot: _Optional[bool] = ..., arch_configs: _Optional[_Iterable[_Union[ArchConfig, _Mapping]]] = ..., own_flavours: _Optional[_Iterable[_Union[OwnFlavour, _Mapping]]] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("code", "message", "where", "hint")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    where: str
    hint: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., where: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("key", "kind", "state", "worker", "attempts", "objects_done", "objects_planned", "doing", "reused", "start_time", "end_time", "why_waiting", "problem")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_DONE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_PLANNED_FIELD_NUMBER: _ClassVar[int]
    DOING_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    WHY_WAITING_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    key: str
    kind: str
    state: State
    worker: str
    attempts: int
    objects_done: int
    objects_planned: int
    doing: str
    reused: bool
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    why_waiting: str
    problem: Problem
    def __init__(self, key: _Optional[str] = ..., kind: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., worker: _Optional[str] = ..., attempts: _Optional[int] = ..., objects_done: _Optional[int] = ..., objects_planned: _Optional[int] = ..., doing: _Optional[str] = ..., reused: _Optional[bool] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., why_waiting: _Optional[str] = ..., problem: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...

class Artifact(_message.Message):
    __slots__ = ("name", "digest", "size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    size: int
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("name", "index", "manifest", "platform", "blobs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    name: str
    index: str
    manifest: str
    platform: str
    blobs: _containers.RepeatedCompositeFieldContainer[Artifact]
    def __init__(self, name: _Optional[str] = ..., index: _Optional[str] = ..., manifest: _Optional[str] = ..., platform: _Optional[str] = ..., blobs: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ...) -> None: ...

class Attachment(_message.Message):
    __slots__ = ("tag", "subject", "media_type", "artifact_type", "manifest", "blobs")
    TAG_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_TYPE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    tag: str
    subject: str
    media_type: str
    artifact_type: str
    manifest: Artifact
    blobs: _containers.RepeatedCompositeFieldContainer[Artifact]
    def __init__(self, tag: _Optional[str] = ..., subject: _Optional[str] = ..., media_type: _Optional[str] = ..., artifact_type: _Optional[str] = ..., manifest: _Optional[_Union[Artifact, _Mapping]] = ..., blobs: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ...) -> None: ...

class Build(_message.Message):
    __slots__ = ("name", "state", "source", "arch", "flavour", "toolchain", "release", "steps", "problem", "create_time", "end_time", "artifacts", "images", "objects_done", "objects_planned", "warnings", "attachments")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    FLAVOUR_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAIN_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_DONE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_PLANNED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: State
    source: str
    arch: str
    flavour: str
    toolchain: str
    release: str
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    problem: Problem
    create_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    artifacts: _containers.RepeatedCompositeFieldContainer[Artifact]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    objects_done: int
    objects_planned: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., source: _Optional[str] = ..., arch: _Optional[str] = ..., flavour: _Optional[str] = ..., toolchain: _Optional[str] = ..., release: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., problem: _Optional[_Union[Problem, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., artifacts: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., objects_done: _Optional[int] = ..., objects_planned: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("worker_id", "name", "arches", "toolchains", "slots", "busy", "jobs", "memory_bytes", "sandbox", "cgroup", "ccache", "boots", "builds")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARCHES_FIELD_NUMBER: _ClassVar[int]
    TOOLCHAINS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    CCACHE_FIELD_NUMBER: _ClassVar[int]
    BOOTS_FIELD_NUMBER: _ClassVar[int]
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    name: str
    arches: _containers.RepeatedScalarFieldContainer[str]
    toolchains: _containers.RepeatedScalarFieldContainer[str]
    slots: int
    busy: int
    jobs: int
    memory_bytes: int
    sandbox: str
    cgroup: str
    ccache: str
    boots: _containers.RepeatedScalarFieldContainer[str]
    builds: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker_id: _Optional[str] = ..., name: _Optional[str] = ..., arches: _Optional[_Iterable[str]] = ..., toolchains: _Optional[_Iterable[str]] = ..., slots: _Optional[int] = ..., busy: _Optional[int] = ..., jobs: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., sandbox: _Optional[str] = ..., cgroup: _Optional[str] = ..., ccache: _Optional[str] = ..., boots: _Optional[_Iterable[str]] = ..., builds: _Optional[_Iterable[str]] = ...) -> None: ...

class SubmitBuildsRequest(_message.Message):
    __slots__ = ("spec", "request_id", "clean")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLEAN_FIELD_NUMBER: _ClassVar[int]
    spec: RequestSpec
    request_id: str
    clean: bool
    def __init__(self, spec: _Optional[_Union[RequestSpec, _Mapping]] = ..., request_id: _Optional[str] = ..., clean: _Optional[bool] = ...) -> None: ...

class SubmitBuildsResponse(_message.Message):
    __slots__ = ("builds",)
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    builds: _containers.RepeatedCompositeFieldContainer[Build]
    def __init__(self, builds: _Optional[_Iterable[_Union[Build, _Mapping]]] = ...) -> None: ...

class GetBuildRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetBuildResponse(_message.Message):
    __slots__ = ("build",)
    BUILD_FIELD_NUMBER: _ClassVar[int]
    build: Build
    def __init__(self, build: _Optional[_Union[Build, _Mapping]] = ...) -> None: ...

class ListBuildsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListBuildsResponse(_message.Message):
    __slots__ = ("builds", "next_page_token")
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    builds: _containers.RepeatedCompositeFieldContainer[Build]
    next_page_token: str
    def __init__(self, builds: _Optional[_Iterable[_Union[Build, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchBuildRequest(_message.Message):
    __slots__ = ("name", "resume_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    resume_token: str
    def __init__(self, name: _Optional[str] = ..., resume_token: _Optional[str] = ...) -> None: ...

class WatchBuildResponse(_message.Message):
    __slots__ = ("build", "resume_token")
    BUILD_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    build: Build
    resume_token: str
    def __init__(self, build: _Optional[_Union[Build, _Mapping]] = ..., resume_token: _Optional[str] = ...) -> None: ...

class ReadLogsRequest(_message.Message):
    __slots__ = ("name", "step", "offset", "follow")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    step: str
    offset: int
    follow: bool
    def __init__(self, name: _Optional[str] = ..., step: _Optional[str] = ..., offset: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class ReadLogsResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class CancelBuildRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelBuildResponse(_message.Message):
    __slots__ = ("build",)
    BUILD_FIELD_NUMBER: _ClassVar[int]
    build: Build
    def __init__(self, build: _Optional[_Union[Build, _Mapping]] = ...) -> None: ...

class RetryBuildRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RetryBuildResponse(_message.Message):
    __slots__ = ("build",)
    BUILD_FIELD_NUMBER: _ClassVar[int]
    build: Build
    def __init__(self, build: _Optional[_Union[Build, _Mapping]] = ...) -> None: ...

class GetResultRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetResultResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _struct_pb2.Struct
    def __init__(self, result: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class SignIndexRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class SignIndexResponse(_message.Message):
    __slots__ = ("index", "attachments")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    index: Artifact
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    def __init__(self, index: _Optional[_Union[Artifact, _Mapping]] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class UploadBlobRequest(_message.Message):
    __slots__ = ("head", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: BlobHead
    data: bytes
    def __init__(self, head: _Optional[_Union[BlobHead, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class BlobHead(_message.Message):
    __slots__ = ("digest", "size")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size: int
    def __init__(self, digest: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class UploadBlobResponse(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class DownloadBlobRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class DownloadBlobResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...
