"""docs/reference/api.md, from proto/kernfarm/v1 with its comments, and from the table of policies."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from google.protobuf import descriptor_pb2 as dp
from grpc_tools import protoc

from kernfarm import rpc
from tools.reference import markdown

_ROOT = Path(__file__).resolve().parent.parent.parent
_PROTO = "kernfarm/v1/build_service.proto"
# Field numbers of google/protobuf/descriptor.proto: paths of SourceCodeInfo are made of them.
_MESSAGE, _ENUM, _SERVICE, _FIELD, _VALUE, _METHOD = 4, 5, 6, 2, 2, 2
_Comments = Mapping[tuple[int, ...], str]
_INTRO = """gRPC, defined in [build_service.proto](../../proto/kernfarm/v1/build_service.proto) in the style of
[google.aip.dev](https://google.aip.dev). `kernfarm.client.FarmClient` is the client library for Python; other languages generate theirs.
The server describes itself by reflection: `grpcurl -cacert ca.pem -H "authorization: Bearer $TOKEN" HOST:PORT list`.

A call shows who it comes from by `authorization: Bearer TOKEN` in its metadata, or by the client's certificate
([access](../howto/access.md)). The role is the least that is needed; what needs a submitter or an admin changes something, and is
[recorded](../howto/access.md#the-audit-record). A name that belongs to another team is answered as one that does not exist.
[Errors](errors.md) says what failures look like.
"""


def page() -> str:
    """The page, the same each time."""
    file = _descriptor()
    comments = {tuple(each.path): _text(each.leading_comments) for each in file.source_code_info.location}
    parts = [_INTRO]
    for index, service in enumerate(file.service):
        parts += [
            f"## {file.package}.{service.name}\n",
            f"{comments.get((_SERVICE, index), '')}\n",
            _methods(service, (_SERVICE, index), comments),
        ]
    parts += [_limits(), "## Other services\n", _others(), "## Messages\n"]
    for index, message in enumerate(file.message_type):
        parts.append(_message(message, (_MESSAGE, index), comments))
    parts.append("## Enumerations\n")
    for index, enum in enumerate(file.enum_type):
        rows = [(f"`{value.name}`", str(value.number), comments.get((_ENUM, index, _VALUE, at), "")) for at, value in enumerate(enum.value)]
        parts += [f"### {enum.name}\n", markdown.table(("value", "number", "meaning"), rows)]
    return markdown.page("API", "tools/reference/api.py", *parts)


def _descriptor() -> dp.FileDescriptorProto:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "descriptors"
        well_known = str(resources.files("grpc_tools") / "_proto")
        paths = (f"--proto_path={_ROOT / 'proto'}", f"--proto_path={well_known}")
        code = protoc.main(["protoc", *paths, "--include_source_info", f"--descriptor_set_out={out}", str(_ROOT / "proto" / _PROTO)])
        if code != 0:
            raise SystemExit(code)
        found = dp.FileDescriptorSet.FromString(out.read_bytes())
    return next(file for file in found.file if file.name == _PROTO)


def _text(comment: str) -> str:
    return " ".join(comment.split())


def _methods(service: dp.ServiceDescriptorProto, place: tuple[int, ...], comments: _Comments) -> str:
    rows = []
    for at, method in enumerate(service.method):
        asked = f"{'stream of ' if method.client_streaming else ''}{_type_link(method.input_type)}"
        given = f"{'stream of ' if method.server_streaming else ''}{_type_link(method.output_type)}"
        rows.append((f"`{method.name}`", rpc.POLICIES[method.name].value, asked, given, comments.get((*place, _METHOD, at), "")))
    return markdown.table(("method", "role", "request", "response", ""), rows)


def _limits() -> str:
    longer = "; ".join(f"{name}: {seconds:.0f} s" for name, seconds in rpc.LIMITS.items())
    ends = f"A call with one answer ends after {rpc.UNARY_SECONDS:.0f} s at the latest ({longer})."
    return f"{ends} A message has at most {rpc.CHUNK >> 20} MiB of a blob in it.\n"


def _others() -> str:
    rows = [(f"`{path.lstrip('/')}`", policy.value) for path, policy in rpc.OTHER_POLICIES.items()]
    return markdown.table(("method", "role"), rows)


def _message(message: dp.DescriptorProto, place: tuple[int, ...], comments: _Comments) -> str:
    said = comments.get(place, "")
    parts = [f"### {message.name}\n", *([f"{said}\n"] if said else [])]
    rows = []
    for at, field in enumerate(message.field):
        one_of = f"One of `{message.oneof_decl[field.oneof_index].name}`. " if field.HasField("oneof_index") else ""
        rows.append((f"`{field.name}`", _type(field), str(field.number), one_of + comments.get((*place, _FIELD, at), "")))
    parts.append(markdown.table(("field", "type", "number", "meaning"), rows) if rows else "No fields.\n")
    return "\n".join(parts)


def _type(field: dp.FieldDescriptorProto) -> str:
    repeated = "repeated " if field.label == dp.FieldDescriptorProto.LABEL_REPEATED else ""
    name = dp.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return repeated + (_type_link(field.type_name) if field.type_name else name)


def _type_link(name: str) -> str:
    """Ours are on this page."""
    full = name.lstrip(".")
    ours, _, short = full.rpartition(".")
    return f"[{short}](#{short.lower()})" if f"{ours}." == "kernfarm.v1." else f"`{full}`"
