"""A hub of one machine: an HTTP server that answers huggingface_hub as the real one does, from memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest


class Repository:
    def __init__(self, private: bool) -> None:
        self.private, self.files, self.commits = private, dict[str, bytes](), list[str]()

    @property
    def commit(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """repositories: by name. asked: METHOD PATH of every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"{self.command} {path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        match path.strip("/").split("/"):
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            case ["api", "models", owner, name, *rest]:
                self._api(f"{owner}/{name}", rest, body)
            case [owner, name, "resolve", _, *parts]:
                self._file(f"{owner}/{name}", "/".join(parts))
            case _:
                self._error(404, "RepoNotFound")

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        repositories, private = (
            self.server.repositories,
            asked.get("visibility") == "private" or asked.get("private") is True,
        )
        status = 409 if repo in repositories else 200
        repositories.setdefault(repo, Repository(private))
        self._send(status, json.dumps({"url": f"{self.server.url}/{repo}"}).encode(), {"X-Error-Code": "RepoExists"})

    def _api(self, repo: str, rest: list[str], body: bytes) -> None:
        found = self.server.repositories.get(repo)
        if found is None:
            return self._error(404, "RepoNotFound")
        match rest:
            case [] | ["revision", "main"]:
                return self._json(
                    {"id": repo, "private": found.private, "sha": found.commit, "siblings": _files(found)}
                )
            case ["revision", commit] if commit == found.commit:
                return self._json({"id": repo, "sha": found.commit, "siblings": _files(found)})
            case ["tree", *_]:
                return self._json(_files(found))
            case ["preupload", *_]:
                asked = json.loads(body)["files"]
                return self._json(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
                )
            case ["commit", "main"]:
                return self._commit(repo, found, [json.loads(line) for line in body.splitlines()])
            case _:
                return self._error(404, "RevisionNotFound")

    def _commit(self, repo: str, found: Repository, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "header":
                found.commits.append(line["value"]["summary"])
            else:
                assert line["key"] == "file"
                found.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        url = f"{self.server.url}/{repo}/commit/{found.commit}"
        self._json({"success": True, "commitOid": found.commit, "commitUrl": url})

    def _file(self, repo: str, path: str) -> None:
        found = self.server.repositories.get(repo)
        if found is None or path not in found.files:
            return self._error(404, "EntryNotFound")
        etag = hashlib.sha256(found.files[path]).hexdigest()
        return self._send(200, found.files[path], {"ETag": f'"{etag}"', "X-Repo-Commit": found.commit})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _files(found: Repository) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": name, "rfilename": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for name, data in found.files.items()
    ]


@contextmanager
def fake_hub(cache: Path) -> Iterator[Hub]:
    """A hub without repositories, which huggingface_hub takes for the real one; an empty cache; a token."""
    from huggingface_hub import constants

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", server.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", "hf_of_the_test")
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
