"""A Hugging Face hub on loopback: as much of its HTTP interface as fetching and pushing use."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

TOKEN = "hf_the_right_one"


@dataclass
class Repository:
    """One repository: its files as of each commit, the last one being main."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, changes: dict[str, bytes], message: str = "") -> str:
        files = (list(self.commits.values()) or [{}])[-1] | changes
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.messages.append(message)
        return sha

    def find(self, revision: str) -> str | None:
        if revision == "main":
            return list(self.commits)[-1]
        return revision if revision in self.commits else None


class HubServer(ThreadingHTTPServer):
    """The hub.

    Attributes:
        repositories: By USER/NAME.
        status: Answers every request with this error, if set.
        damage: What becomes of a large file on its way to the reader.
        log: Method and path of every request, and user agents.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.status: int | None = None
        self.damage = bytes
        self.log: list[str] = []
        self.agents: set[str] = set()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> str:
        self.repositories[name] = Repository(**options)
        return self.repositories[name].commit(files)

    def files_of(self, name: str) -> dict[str, bytes]:
        return list(self.repositories[name].commits.values())[-1]


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def identity(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if is_large(path) else git_id(content)


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.log.append(f"{self.command} {path}")
        self.server.agents.add(self.headers.get("User-Agent", ""))
        if self.server.status is not None:
            return self.answer(self.server.status, {"error": "as asked for"})
        for method, pattern, act in ROUTES:
            if self.command in method and (match := re.fullmatch(pattern, path)):
                return act(self, body, *match.groups())
        self.answer(404, {"error": f"the stub has no {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.server.root}/{name}"
        if not self.is_known():
            return self.answer(401, {"error": "Invalid username or password."})
        if asked["organization"] != "user":
            return self.answer(403, {"error": "You don't have the rights to create a model here"})
        if name in self.server.repositories:
            return self.answer(409, {"error": "You already created this model repo", "url": url})
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.server.repositories[name] = Repository(private=private)
        self.server.repositories[name].commit({})
        self.answer(200, {"url": url, "name": name})

    def validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        metadata = yaml.safe_load(content.split("---")[1])
        wrong = metadata.get("license") == "no such licence"
        errors = [{"message": '"license" must be one of [mit, ...]'}] if wrong else []
        self.answer(400 if wrong else 200, {"errors": errors, "warnings": []})

    def info(self, body: bytes, name: str, revision: str | None) -> None:
        if found := self.open(name, revision or "main"):
            repository, sha = found
            siblings = [{"rfilename": path} for path in repository.commits[sha]]
            about = {"id": name, "modelId": name, "sha": sha, "private": repository.private}
            self.answer(200, about | {"siblings": siblings, "tags": [], "downloads": 0})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        if found := self.open(name, revision):
            repository, sha = found
            self.answer(200, [describe(*file) for file in repository.commits[sha].items()])

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if found := self.open(name, revision, write=True):
            repository, sha = found
            there = repository.commits[sha]
            files = [
                {
                    "path": (path := file["path"]),
                    "uploadMode": "lfs" if is_large(path) else "regular",
                    "shouldIgnore": False,
                    "oid": identity(path, there[path]) if path in there else None,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        if self.open(name, "main", write=True):
            objects = [
                asked | {"actions": {"upload": {"href": f"{self.server.root}/lfs/{asked['oid']}"}}}
                for asked in json.loads(body)["objects"]
            ]
            self.answer(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        right = hashlib.sha256(body).hexdigest() == oid
        if right:
            self.server.blobs[oid] = body
        self.answer(200 if right else 400, {})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if found := self.open(name, revision, write=True):
            header, *changes = [json.loads(line) for line in body.splitlines()]
            files = {change["value"]["path"]: self.content(change) for change in changes}
            sha = found[0].commit(files, header["value"]["summary"])
            url = f"{self.server.root}/{name}/commit/{sha}"
            self.answer(200, {"commitUrl": url, "commitOid": sha})

    def content(self, change: dict[str, Any]) -> bytes:
        value = change["value"]
        if change["key"] == "lfsFile":
            return self.server.blobs[value["oid"]]
        return base64.b64decode(value["content"])

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        if not (found := self.open(name, revision)):
            return
        repository, sha = found
        content = repository.commits[sha].get(path)
        if content is None:
            return self.answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        etag = f'"{identity(path, content)}"'
        headers = {"X-Repo-Commit": sha, "ETag": etag, "X-Linked-Size": str(len(content))}
        sent = self.server.damage(content) if is_large(path) else content
        self.answer(200, sent, headers)

    def open(
        self, name: str, revision: str, *, write: bool = False
    ) -> tuple[Repository, str] | None:
        repository = self.server.repositories.get(name)
        if repository is None or ((write or repository.private) and not self.is_known()):
            self.answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif repository.gated:
            self.answer(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        elif (sha := repository.find(revision)) is None:
            self.answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            return repository, sha
        return None

    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def log_message(self, format: str, *args: object) -> None:
        pass


def describe(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_id(content)}
    large = {"oid": identity(path, content), "size": len(content), "pointerSize": 134}
    return entry | ({"lfs": large} if is_large(path) else {})


NAME = r"/api/models/([^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", NAME, lambda self, body, name: self.info(body, name, None)),
    ("GET", rf"{NAME}/revision/(.+)", _Handler.info),
    ("GET", rf"{NAME}/tree/([^/]+)", _Handler.tree),
    ("POST", rf"{NAME}/preupload/([^/]+)", _Handler.preupload),
    ("POST", rf"{NAME}/commit/([^/]+)", _Handler.commit),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/lfs/(\w+)", _Handler.put),
    ("GET HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
]


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def connect(server: HubServer, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Points huggingface_hub, which has read its environment by now, at a stub."""
    template = server.root + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "ENDPOINT", server.root)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
