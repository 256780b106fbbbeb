"""A hub on this machine: enough of its HTTP interface for huggingface_hub to make repositories, commit to them, and fetch."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repository:
    """branches: name -> path -> bytes."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})


class FakeHub(ThreadingHTTPServer):
    """repositories; requests: (method, path, authorization); refuse: path pattern -> (status, what it says)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.refuse: dict[str, tuple[int, str]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def add(self, name: str, files: dict[str, bytes], branch: str = "main") -> None:
        self.repositories.setdefault(name, Repository()).branches.setdefault(branch, {}).update(files)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer()

    def do_HEAD(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.server.requests.append((self.command, path, self.headers.get("Authorization", "")))
        for pattern, (status, said) in self.server.refuse.items():
            if re.search(pattern, f"{self.command} {path}"):
                return self._send(status, {"error": said}, said=said)
        for pattern, work in _ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                return work(self, *match.groups(), body=body, query=parse_qs(parts.query))
        return self._send(404, {"error": f"no route {self.command} {path}"})

    def _send(self, status, data, *, said="", code="", **headers):
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {**headers, "X-Error-Message": said, "X-Error-Code": code}.items():
            if value:
                self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _files(self, name, revision):
        """(commit, files), or None after saying what is missing."""
        repository = self.server.repositories.get(name)
        if repository is None:
            return self._send(404, {}, code="RepoNotFound", said="Repository not found")
        found = {_commit(files): files for files in repository.branches.values()} | repository.branches
        if revision not in found:
            return self._send(404, {}, code="RevisionNotFound", said="Invalid rev id")
        return _commit(found[revision]), found[revision]

    def create(self, body, query):
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.server.repositories:
            return self._send(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
        wished = asked.get("private") or asked.get("visibility") == "private"
        self.server.repositories[name] = Repository(private=bool(wished))
        return self._send(200, {"url": f"{self.server.url}/{name}", "name": name, "id": name})

    def branch(self, name, branch, body, query):
        repository = self.server.repositories[name]
        if branch in repository.branches:
            return self._send(409, {"error": "Reference already exists"})
        repository.branches[branch] = dict(repository.branches["main"])
        return self._send(200, {})

    def info(self, name, revision="main", *, body, query):
        if found := self._files(name, revision or "main"):
            commit, files = found
            told = [{"rfilename": path, "size": len(data), "blobId": "0" * 40} for path, data in files.items()]
            private = self.server.repositories[name].private
            self._send(200, {"id": name, "modelId": name, "sha": commit, "private": private, "siblings": told})

    def tree(self, name, revision, body, query):
        if found := self._files(name, revision):
            listed = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in found[1].items()
            ]
            self._send(200, listed)

    def resolve(self, name, revision, path, body, query):
        if found := self._files(name, revision):
            commit, files = found
            if path not in files:
                return self._send(404, {}, code="EntryNotFound", said="Entry not found")
            etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
            return self._send(200, files[path], ETag=etag, X_Repo_Commit=commit)
        return None

    def preupload(self, name, revision, body, query):
        asked = json.loads(body)["files"]
        told = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for one in asked]
        self._send(200, {"files": told})

    def commit(self, name, revision, body, query):
        files = self.server.repositories[name].branches[revision]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        oid = _commit(files)
        told = {"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid, "hookOutput": ""}
        self._send(200, {**told, "success": True})

    def validate(self, body, query):
        self._send(200, {"errors": [], "warnings": []})


def _commit(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1()
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + hashlib.sha1(files[path]).digest())
    return digest.hexdigest()


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    (r"POST /api/repos/create", _Handler.create),
    (rf"POST /api/models/{_NAME}/branch/(.+)", _Handler.branch),
    (rf"POST /api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    (rf"POST /api/models/{_NAME}/commit/(.+)", _Handler.commit),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"GET /api/models/{_NAME}", _Handler.info),
    (rf"GET /api/models/{_NAME}/revision/(.+)", _Handler.info),
    (rf"GET /api/models/{_NAME}/tree/([^/]+)", _Handler.tree),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
)
