"""A hub on 127.0.0.1 that answers what the real client of huggingface_hub asks."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

TOKEN = "hf_stand_in"
RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
API = re.compile(
    r"/api/models/(?P<repo>[^/]+/[^/]+?)"
    r"(/(?P<what>revision|tree|preupload|commit)/(?P<revision>[^/?]+))?"
)
BRANCH = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<branch>.+)")
BATCH = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")


class Hub(ThreadingHTTPServer):
    """Repositories of files in memory, a commit each time that they change."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.refs: dict[str, dict[str, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.cut: dict[str, int] = {}  # so many bytes of a file are sent, then the line drops
        self.asked: list[str] = []
        self.cards: list[dict] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, repo: str, files: dict[str, bytes] | Path, branch: str = "main") -> str:
        """A commit of a repository that holds just these files."""
        if isinstance(files, Path):
            files = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
        told = json.dumps([(name, sha256(data)) for name, data in sorted(files.items())])
        commit = hashlib.sha1(f"{repo} {told}".encode()).hexdigest()
        self.repos.setdefault(repo, {})[commit] = dict(files)
        self.refs.setdefault(repo, {})[branch] = commit
        return commit

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        return self.repos[repo][self.refs[repo][branch]]


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: object = b"", status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = self.server.cut.get(self.path.rpartition("/")[2], len(data))
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:sent])
        if sent < len(data):
            self.close_connection = True

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts: list[bytes] = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def knows(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def commit_of(self, repo: str, revision: str) -> str | None:
        """The commit that is meant; `None` once it was refused."""
        if repo not in self.server.repos or (repo in self.server.private and not self.knows()):
            status = 404 if self.knows() else 401  # as the real hub does
            self.refuse(status, "RepoNotFound", "Repository not found")
        elif repo in self.server.gated:
            self.refuse(403, "GatedRepo", "Access to this model is restricted")
        else:
            revision = unquote(revision)
            commit = self.server.refs[repo].get(revision, revision)
            if commit in self.server.repos[repo]:
                return commit
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        if found := RESOLVE.fullmatch(path):
            self.file(**found.groupdict())
        elif found := API.fullmatch(path):
            self.info(found["repo"], found["what"], found["revision"] or "main")
        else:
            self.refuse(404, "NotFound", f"No page {path}")

    do_HEAD = do_GET

    def file(self, repo: str, revision: str, file: str) -> None:
        commit = self.commit_of(repo, revision)
        if commit is None:
            return
        data = self.server.repos[repo][commit].get(unquote(file))
        if data is None:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        etag = sha256(data) if is_large(file) else git_id(data)
        headers = {"ETag": f'"{etag}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
            headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
            self.answer(data[first : last + 1], 206, **headers)
        else:
            self.answer(data, **headers)

    def info(self, repo: str, what: str | None, revision: str) -> None:
        commit = self.commit_of(repo, revision)
        if commit is None:
            return
        files = self.server.repos[repo][commit]
        if what == "tree":
            self.answer([entry(name, data) for name, data in files.items()])
        else:
            siblings = [{"rfilename": name} for name in files]
            self.answer({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings})

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        body = self.body()
        if path == "/api/validate-yaml":
            self.validate(json.loads(body)["content"])
        elif not self.knows():
            self.refuse(401, "Unauthorized", "Invalid credentials in Authorization header")
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif found := BRANCH.fullmatch(path):
            self.branch(found["repo"], unquote(found["branch"]))
        elif found := BATCH.fullmatch(path):
            self.batch(json.loads(body))
        elif found := API.fullmatch(path):
            commit = self.commit_of(found["repo"], found["revision"])
            if commit is not None and found["what"] == "preupload":
                self.preupload(json.loads(body))
            elif commit is not None:
                lines = [json.loads(line) for line in body.splitlines()]
                self.commit(found["repo"], commit, unquote(found["revision"]), lines)
        else:
            self.refuse(404, "NotFound", f"No page {path}")

    def do_PUT(self) -> None:
        oid, data = self.path.rpartition("/")[2], self.body()
        if sha256(data) != oid:
            self.refuse(400, "BadRequest", "These bytes have another sha256.")
            return
        self.server.blobs[oid] = data
        self.answer()

    def validate(self, text: str) -> None:
        """The header of a card must be YAML, and its parts of the types that the hub wants."""
        header = yaml.safe_load(text.split("---\n")[1])
        self.server.cards.append(header)
        lists = {"tags": str, "datasets": str, "metrics": str, "model-index": dict}
        wrong = [
            key for key, kind in lists.items()
            if not all(isinstance(item, kind) for item in header.get(key, []))
        ]  # fmt: skip
        if not re.fullmatch(r"[a-z0-9.-]+", header.get("license", "other")):
            wrong.append("license")
        errors = [{"message": f"{key!r} is not valid"} for key in wrong]
        self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def create(self, told: dict) -> None:
        repo = f"{told.get('organization', 'me')}/{told['name']}"
        if repo in self.server.repos:
            self.answer({"error": "exists", "url": f"{self.server.url}/{repo}"}, 409)
            return
        self.server.put(repo, {})
        if told.get("private") or told.get("visibility") == "private":
            self.server.private.add(repo)
        self.answer({"url": f"{self.server.url}/{repo}", "name": repo, "id": repo})

    def branch(self, repo: str, branch: str) -> None:
        if branch in self.server.refs[repo]:
            self.answer({"error": "exists"}, 409)
            return
        self.server.refs[repo][branch] = self.server.refs[repo]["main"]
        self.answer()

    def batch(self, told: dict) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}}
            for one in told["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def preupload(self, told: dict) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                "shouldIgnore": False,
            }
            for file in told["files"]
        ]
        self.answer({"files": files})

    def commit(self, repo: str, parent: str, branch: str, lines: list[dict]) -> None:
        files = dict(self.server.repos[repo][parent])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            else:
                files.pop(value["path"], None)
        oid = self.server.put(repo, files, branch)
        url = f"{self.server.url}/{repo}/commit/{oid}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry(name: str, data: bytes) -> dict:
    file = {"type": "file", "path": name, "size": len(data), "oid": git_id(data)}
    if is_large(name):
        file["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
    return file


@pytest.fixture(scope="session")
def running() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(running, tmp_path, monkeypatch) -> Hub:
    """The stand-in, empty; the client of this process talks to it, with a cache of its own."""
    for kept in (running.repos, running.refs, running.private, running.gated, running.cut):
        kept.clear()
    running.asked.clear()
    running.cards.clear()
    url = running.url
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    disable_progress_bars()
    yield running
    enable_progress_bars()
