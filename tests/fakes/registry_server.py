"""A registry in memory, by the OCI distribution specification 1.1 with referrers, that misbehaves on command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Answer:
    """What is answered; a Fault that returns one answers in place of the registry."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


Fault = Callable[[Asked], Answer | None]


class FakeRegistry:
    """Serves on a free port while entered. `faults` are asked before each request, in order."""

    def __init__(self, *, referrers: bool = True) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[str, str] = {}
        self.sessions: dict[str, bytes] = {}
        self.referrers = referrers
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self._number = 0
        self.address = ""

    def __enter__(self) -> FakeRegistry:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                body = self._body()
                parts = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(parts.query))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = registry.answer(Asked(self.command, parts.path, query, headers, body))
                if len(body) < int(headers.get("content-length", 0)):
                    self.close_connection = True  # the client is gone; what it sent is kept
                    return
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            def _body(self) -> bytes:
                data = b""
                with contextlib.suppress(OSError):
                    while left := int(self.headers.get("Content-Length", 0)) - len(data):
                        if not (more := self.rfile.read1(min(left, 4096))):
                            break
                        data += more
                return data

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def writes(self) -> list[Asked]:
        return [each for each in self.asked if each.method in ("POST", "PUT", "PATCH", "DELETE")]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        for fault in self.faults:
            if (answer := fault(asked)) is not None:
                return answer
        _, _, rest = asked.path.partition("/v2/")
        for kind, serve in (("/blobs/uploads/", self._upload), ("/blobs/", self._blob), ("/manifests/", self._manifest)):
            repository, found, name = rest.partition(kind)
            if found:
                return serve(asked, repository, name)
        if "/referrers/" in rest and self.referrers:
            return self._referrers(rest.partition("/referrers/")[2])
        return Answer(404 if rest else 200)

    def _upload(self, asked: Asked, repository: str, name: str) -> Answer:
        if asked.method == "POST":
            if asked.query.get("mount") in self.blobs:
                return Answer(201, {"Location": "/", "Docker-Content-Digest": asked.query["mount"]})
            self._number += 1
            self.sessions[str(self._number)] = b""
            return Answer(202, {"Location": f"/v2/{repository}/blobs/uploads/{self._number}", "Range": "0-0"})
        if name not in self.sessions:
            return Answer(404, body=_error("BLOB_UPLOAD_UNKNOWN"))
        if asked.method == "DELETE":
            del self.sessions[name]
            return Answer(204)
        if asked.method == "PATCH":
            start = int(asked.headers["content-range"].partition("-")[0])
            if start != len(self.sessions[name]):
                return Answer(416)
            self.sessions[name] += asked.body
        if asked.method == "PUT":
            data = self.sessions.pop(name) + asked.body
            if _digest(data) != asked.query["digest"]:
                return Answer(400, body=_error("DIGEST_INVALID"))
            self.blobs[asked.query["digest"]] = data
            return Answer(201, {"Docker-Content-Digest": asked.query["digest"]})
        end = max(0, len(self.sessions[name]) - 1)
        status = 202 if asked.method == "PATCH" else 204
        return Answer(status, {"Location": asked.path, "Range": f"0-{end}"})

    def _blob(self, asked: Asked, repository: str, digest: str) -> Answer:
        if digest not in self.blobs:
            return Answer(404, body=_error("BLOB_UNKNOWN"))
        return Answer(200, {"Docker-Content-Digest": digest}, self.blobs[digest])

    def _manifest(self, asked: Asked, repository: str, name: str) -> Answer:
        if asked.method == "PUT":
            digest = _digest(asked.body)
            self.manifests[digest] = (asked.headers["content-type"], asked.body)
            if not name.startswith("sha256:"):
                self.tags[name] = digest
            subject = json.loads(asked.body).get("subject")
            more = {"OCI-Subject": subject["digest"]} if subject and self.referrers else {}
            return Answer(201, {"Docker-Content-Digest": digest, **more})
        digest = self.tags.get(name, name)
        if digest not in self.manifests:
            return Answer(404, body=_error("MANIFEST_UNKNOWN"))
        kind, data = self.manifests[digest]
        return Answer(200, {"Docker-Content-Digest": digest, "Content-Type": kind}, data)

    def _referrers(self, subject: str) -> Answer:
        found = []
        for digest, (kind, data) in self.manifests.items():
            body = json.loads(data)
            if (body.get("subject") or {}).get("digest") == subject:
                found.append({"mediaType": kind, "digest": digest, "size": len(data), "artifactType": body["artifactType"]})
        listing = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found}
        return Answer(200, {"Content-Type": INDEX}, json.dumps(listing).encode())


def once(fault: Fault) -> Fault:
    """The fault, until it has struck once."""
    struck: list[bool] = []

    def ask(asked: Asked) -> Answer | None:
        answer = None if struck else fault(asked)
        if answer is not None:
            struck.append(True)
        return answer

    return ask


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": f"says the registry: {code}"}]}).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
