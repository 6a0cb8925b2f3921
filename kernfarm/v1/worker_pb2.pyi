from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Attempt(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: _struct_pb2.Struct
    def __init__(self, value: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class AttemptEvent(_message.Message):
    __slots__ = ("heard", "log", "finished", "failed")
    HEARD_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    heard: Heard
    log: bytes
    finished: _struct_pb2.Struct
    failed: _struct_pb2.Struct
    def __init__(self, heard: _Optional[_Union[Heard, _Mapping]] = ..., log: _Optional[bytes] = ..., finished: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., failed: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Heard(_message.Message):
    __slots__ = ("objects", "doing")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    DOING_FIELD_NUMBER: _ClassVar[int]
    objects: int
    doing: str
    def __init__(self, objects: _Optional[int] = ..., doing: _Optional[str] = ...) -> None: ...

class WorkerFacts(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: _struct_pb2.Struct
    def __init__(self, value: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
