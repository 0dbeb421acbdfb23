"""A hub on this machine: the parts of its protocol that are used, and the ways in which one can fail or lie."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"
LARGE = (".safetensors", ".pth", ".bin", ".parquet", ".gz")


@dataclass
class Repo:
    """One repository. `status` answers every request for a file (or for `api`, the listing) with these statuses, one after another."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    private: bool = False
    code: str = ""
    """X-Error-Code of refusals, `GatedRepo` for instance."""
    status: dict[str, list[int]] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)
    """Bytes after which the connection breaks, for each answer in turn."""
    hashes: dict[str, str] = field(default_factory=dict)
    """Told in place of the true ones."""
    etags: dict[str, str] = field(default_factory=dict)
    """Told with the file itself in place of the true ones."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Told in place of the true ones."""
    content: dict[str, bytes] = field(default_factory=dict)
    """Sent in place of what was listed."""
    ranges: bool = True
    tree: bool = True
    retry_after: str = ""
    ignored: set[str] = field(default_factory=set)
    """Files of an upload that are not kept."""

    def digest(self, path: str) -> str:
        return self.hashes.get(path) or (sha256 if path.endswith(LARGE) else blob)(self.files[path])

    def size(self, path: str) -> int:
        return self.sizes.get(path, len(self.files[path]))

    def row(self, path: str) -> dict[str, Any]:
        row: dict[str, Any] = {"type": "file", "path": path, "size": self.size(path), "oid": self.digest(path)}
        if path.endswith(LARGE):
            row |= {"oid": "0" * 40, "lfs": {"oid": self.digest(path), "size": self.size(path), "pointerSize": 130}}
        return row


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class LoopbackHub:
    """`repos` by `models/OWNER/NAME` or `datasets/OWNER/NAME`; `asked` is every request as (method, path, headers)."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.stored: dict[str, bytes] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def add(self, name: str, files: dict[str, bytes], **how: Any) -> Repo:
        self.repos[name] = Repo(files, **how)
        return self.repos[name]

    def ranges(self, path: str) -> list[str]:
        """Range of every request for the content of a file, in order."""
        return [sent.get("range", "") for method, asked, sent in self.asked if method == "GET" and asked.endswith(f"/{path}")]


@contextmanager
def running() -> Iterator[LoopbackHub]:
    hub = LoopbackHub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._note()
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._api(f"{found[1]}/{found[2]}", found[3], unquote(found[4] or "main"))
        elif found := re.fullmatch(r"(?:/(cdn))?(/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(f"{'datasets' if found[2] else 'models'}/{found[3]}", unquote(found[5]), stored=bool(found[1]))
        else:
            self._json({"error": f"no route {path}"}, 404)

    def do_POST(self) -> None:
        path, body = self._note(), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        refusal = next((repo.status["write"].pop(0) for repo in self.hub.repos.values() if repo.status.get("write")), None)
        if refusal:
            self._json({"error": "not yours"}, refusal)
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
            self.hub.add(name, {}, private=asked.get("visibility") == "private" or bool(asked.get("private")))
            self._json({"url": f"{self.hub.address}/{asked['organization']}/{asked['name']}"})
        elif found := re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)/preupload/main", path):
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"} for file in files]
            self._json({"files": [{**file, "shouldIgnore": False} for file in modes]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.hub.address}/store/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._json({"error": f"no route {path}"}, 404)

    def do_PUT(self) -> None:
        path = self._note()
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.stored[path.rpartition("/")[2]] = content
        self._json({})

    def _note(self) -> str:
        path = urlsplit(self.path).path
        self.hub.asked.append((self.command, unquote(path), {name.lower(): value for name, value in self.headers.items()}))
        self.query = parse_qs(urlsplit(self.path).query)
        return path

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refused(self, repo: Repo | None, what: str) -> bool:
        if repo is None:
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return True
        status = repo.status.get(what)
        if not status or (code := status.pop(0) if len(status) > 1 else status[0]) == 200:
            return False
        words = {"X_Error_Code": repo.code} if repo.code else {}
        self._json({"error": "as the test wants"}, code, **words, **({"Retry_After": repo.retry_after} if repo.retry_after else {}))
        return True

    def _api(self, name: str, route: str | None, revision: str) -> None:
        repo = self.hub.repos.get(name)
        if self._refused(repo, "tree" if route == "tree" else "api"):
            return
        assert repo is not None
        if revision not in ("main", repo.commit):
            self._json({"error": "Invalid rev"}, 404, X_Error_Code="RevisionNotFound")
        elif route == "tree":
            self._json([repo.row(path) for path in repo.files] if repo.tree else {"error": "no trees here"}, 200 if repo.tree else 404)
        else:
            siblings = [{"rfilename": path} for path in repo.files]
            self._json({"id": name.partition("/")[2], "sha": repo.commit, "private": repo.private, "siblings": siblings})

    def _file(self, name: str, path: str, stored: bool) -> None:
        repo = self.hub.repos.get(name)
        if self._refused(repo, f"{self.command} {path}") or self._refused(repo, path):
            return
        assert repo is not None
        if path not in repo.files:
            self._json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        told = {"ETag": f'"{repo.etags.get(path) or repo.digest(path)}"', "X-Repo-Commit": repo.commit}
        if path.endswith(LARGE) and not stored:  # large files lie on another host, which must not see the token
            self.send_response(302)
            linked = {"X-Linked-Etag": told["ETag"], "X-Linked-Size": str(repo.size(path)), "X-Repo-Commit": repo.commit}
            place = f"http://localhost:{self.hub.port}/cdn{self.path}"
            for header, text in {**linked, "Location": place, "Content-Length": "0"}.items():
                self.send_header(header, text)
            self.end_headers()
            return
        self._content(repo, path, told if not stored else {"ETag": '"d41d8cd98f00b204e9800998ecf8427e-2"'})

    def _content(self, repo: Repo, path: str, headers: dict[str, str]) -> None:
        content = repo.content.get(path, repo.files[path])
        start = int(found[1]) if repo.ranges and (found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        if start and start >= len(content):
            self._json({"error": "range"}, 416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        length = repo.size(path) if self.command == "HEAD" else len(content) - start
        for header, text in {**headers, "Content-Length": str(length)}.items():
            self.send_header(header, text)
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = repo.cut.get(path)
        end = start + cuts.pop(0) if cuts else len(content)
        self.wfile.write(content[start:end])
        if end < len(content):
            self.wfile.flush()
            self.close_connection = True

    def _commit(self, name: str, lines: list[Any]) -> None:
        repo = self.hub.repos[name]
        for line in lines:
            value = line["value"]
            if line["key"] != "header" and value["path"] not in repo.ignored:
                stored = line["key"] == "lfsFile"
                repo.files[value["path"]] = self.hub.stored[value["oid"]] if stored else base64.b64decode(value["content"])
        repo.commit = "c" * 40
        self._json({"commitUrl": f"{self.hub.address}/{name}/commit/{repo.commit}", "commitOid": repo.commit})
