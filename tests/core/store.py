"""An object store on this machine, which speaks as much of Google's JSON interface as gcsfs and tensorstore use.

Objects are whole or absent, have a generation, and are written on the condition of one (`ifGenerationMatch`), as
tensorstore's transactions need: https://cloud.google.com/storage/docs/json_api/v1. Run as a program it serves until it
is killed: `python -m tests.core.store PORT`.
"""

from __future__ import annotations

import contextlib
import email
import http.server
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "faces"
OBJECT = r"/storage/v1/b/[^/]+/o/(?P<name>[^/]+)"


@contextlib.contextmanager
def emulated() -> Iterator[tuple[str, dict[str, str]]]:
    """Gives the URL of an empty bucket, gs://..., and the environment in which programs find it."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    place = f"http://localhost:{port}"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.core.store", str(port)]
    server = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)  # it tells of clients that went away
    try:
        _wait(server, place)
        yield (
            f"gs://{BUCKET}",
            {
                "STORAGE_EMULATOR_HOST": place,
                "TENSORSTORE_GCS_HTTP_URL": place,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            },
        )
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def here() -> Iterator[str]:
    """The same for this process: gives the URL alone."""
    with emulated() as (url, environment):
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            yield url
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _wait(server: subprocess.Popen, place: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{place}/storage/v1/b/{BUCKET}", timeout=5).read()
            return
        time.sleep(0.05)
    raise RuntimeError("the emulator of an object store does not answer")


class Refused(Exception):
    """An HTTP status that is not one of success."""


class Objects:
    """The bucket: name -> (content, generation)."""

    def __init__(self):
        self.kept: dict[str, tuple[bytes, int]] = {}
        self.uploads: dict[str, tuple[dict[str, str], bytearray]] = {}
        self.generations, self.lock = itertools.count(1), threading.Lock()

    def get(self, name: str) -> tuple[bytes, int]:
        """Content and generation of an object."""
        if name not in self.kept:
            raise Refused(404)
        return self.kept[name]

    def allow(self, name: str, query: dict[str, str]) -> None:
        """Refuses what depends on another generation than there is."""
        there = self.kept[name][1] if name in self.kept else 0
        if int(query.get("ifGenerationMatch", there)) != there:
            raise Refused(412)
        if query.get("ifGenerationNotMatch") == str(there):
            raise Refused(304)

    def put(self, name: str, content: bytes, query: dict[str, str]) -> dict:
        """Writes an object."""
        with self.lock:
            self.allow(name, query)
            self.kept[name] = content, next(self.generations)
            return self.told(name)

    def remove(self, name: str, query: dict[str, str]) -> None:
        """Deletes an object."""
        with self.lock:
            self.get(name)
            self.allow(name, query)
            del self.kept[name]

    def told(self, name: str) -> dict:
        """An object's resource."""
        content, generation = self.get(name)
        when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        facts = {"kind": "storage#object", "bucket": BUCKET, "name": name, "id": f"{BUCKET}/{name}/{generation}"}
        facts |= {"generation": str(generation), "metageneration": "1", "size": str(len(content)), "updated": when}
        return facts | {"timeCreated": when, "etag": str(generation), "storageClass": "STANDARD"}

    def listed(self, query: dict[str, str]) -> dict:
        """A page of the names under a prefix, folded at a delimiter; the page's token is its last name."""
        prefix, delimiter, size = query.get("prefix", ""), query.get("delimiter"), int(query.get("maxResults", 1000))
        items, folders, last = [], [], ""
        for name in sorted(self.kept):
            if not name.startswith(prefix) or name < query.get("startOffset", "") or name <= query.get("pageToken", ""):
                continue
            if "endOffset" in query and name >= query["endOffset"]:
                continue
            if len(items) + len(folders) >= size:
                return {"kind": "storage#objects", "items": items, "prefixes": folders, "nextPageToken": last}
            at = name.find(delimiter, len(prefix)) if delimiter else -1
            if at < 0:
                items.append(self.told(name))
            elif (folder := name[: at + 1]) not in folders:
                folders.append(folder)
            last = name
        return {"kind": "storage#objects", "items": items, "prefixes": folders}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers requests on `objects`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer, of two writes, waits for an acknowledgement
    objects = Objects()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunks()
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        try:
            if url.path == "/batch/storage/v1":
                self._send(*self._batch(body))
            else:
                self._send(*self._one(self.command, url.path, query, body))
        except Refused as refused:
            status = refused.args[0]
            self._send(
                status, b"" if status == 304 else json.dumps({"error": {"code": status, "message": ""}}).encode()
            )

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def _one(self, verb: str, path: str, query: dict[str, str], body: bytes) -> tuple:
        objects = self.objects
        if path.startswith("/upload/"):
            return self._upload(verb, query, body)
        if found := re.fullmatch(OBJECT + r"/(?:rewriteTo/b/[^/]+|copyTo/b/[^/]+|moveTo)/o/(?P<to>[^/]+)", path):
            source, target = unquote(found["name"]), unquote(found["to"])
            told = objects.put(target, objects.get(source)[0], {})
            if "/moveTo/" in path:
                objects.remove(source, {})
            return 200, json.dumps({**told, "done": True, "resource": told}).encode()
        if found := re.fullmatch("(?:/download)?" + OBJECT, path):
            name = unquote(found["name"])
            if verb == "DELETE":
                objects.remove(name, query)
                return 204, b""
            if query.get("alt") != "media":
                return 200, json.dumps(objects.told(name)).encode()
            return self._content(name, query)
        if re.fullmatch(r"/storage/v1/b/[^/]+/o", path):
            return 200, json.dumps(objects.listed(query)).encode()
        if re.fullmatch(r"/storage/v1/b/[^/]+", path):
            return 200, json.dumps({"kind": "storage#bucket", "name": BUCKET, "location": "HERE"}).encode()
        raise Refused(501)

    def _content(self, name: str, query: dict[str, str]) -> tuple:
        content, generation = self.objects.get(name)
        self.objects.allow(name, query)
        told = {"x-goog-generation": str(generation), "ETag": str(generation)}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return 200, content, told
        size = len(content)
        start = int(asked[1]) if asked[1] else max(size - int(asked[2]), 0)
        end = min(int(asked[2]) + 1, size) if asked[1] and asked[2] else size
        if start >= size:
            raise Refused(416)
        return 206, content[start:end], told | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}

    def _upload(self, verb: str, query: dict[str, str], body: bytes) -> tuple:
        objects, kind = self.objects, query.get("uploadType")
        if verb == "PUT" or "upload_id" in query:
            query, content = objects.uploads[query["upload_id"]]
            content += body
            whole = re.search(r"/(\d+)$", self.headers.get("Content-Range", "/*"))
            if whole is None or int(whole[1]) > len(content):
                return 308, b"", {"Range": f"bytes=0-{len(content) - 1}"} if content else {}
            return 200, json.dumps(objects.put(query["name"], bytes(content), query)).encode()
        if kind == "multipart":
            parts = _parts(self.headers["Content-Type"], body)
            return 200, json.dumps(objects.put(json.loads(parts[0][1])["name"], parts[1][1], query)).encode()
        if kind == "resumable":
            query["name"] = query.get("name") or json.loads(body)["name"]
            number = str(next(objects.generations))
            objects.uploads[number] = query, bytearray()
            host = self.headers["Host"]
            where = f"http://{host}/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&upload_id={number}"
            return 200, b"", {"Location": where}
        return 200, json.dumps(objects.put(query["name"], body, query)).encode()

    def _batch(self, body: bytes) -> tuple:
        """Several requests without bodies in one, as gcsfs deletes."""
        answers = []
        for headers, content in _parts(self.headers["Content-Type"], body):
            verb, target = content.split(b"\r\n", 1)[0].decode().split(" ")[:2]
            try:
                status = self._one(verb, urlsplit(target).path, {}, b"")[0]
            except Refused as refused:
                status = refused.args[0]
            number = headers.get("Content-ID", "<0>").strip("<>")
            answers.append(
                f"--answer\r\nContent-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\n"
                f"HTTP/1.1 {status} Done\r\nContent-Length: 0\r\n\r\n\r\n"
            )
        return 200, ("".join(answers) + "--answer--").encode(), {"Content-Type": "multipart/mixed; boundary=answer"}

    def _chunks(self) -> bytes:
        content = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().strip() or b"0", 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return content

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _parts(kind: str, body: bytes) -> list[tuple[email.message.Message, bytes]]:
    """Headers and content of each part of a multipart body."""
    boundary = b"--" + re.search(r'boundary="?([^";]+)', kind)[1].encode()
    found = []
    for part in body.split(boundary)[1:-1]:
        end = b"\r\n" if part.startswith(b"\r\n") else b"\n"
        head, _, content = part.removeprefix(end).partition(2 * end)
        found.append((email.message_from_bytes(head), content.removesuffix(end)))
    return found


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("localhost", int(sys.argv[1])), Handler).serve_forever()
