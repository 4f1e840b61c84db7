"""A server that speaks the Hugging Face Hub's protocol, as far as downloads need it, on two ports of 127.0.0.1.

    with HubServer() as hub:
        repo = hub.add("user/model", {"model.gguf": content, "config.json": b"{}"})
        ... HF_ENDPOINT=hub.url HF_HUB_DISABLE_XET=1 ...

The first port is the Hub: model information with checksums, trees, resolve. Large files (LFS, from LFS_FROM bytes) are redirected to
the second, which stands for the content network: another origin, signed addresses, ranges. `requests` lists what was asked,
`sent` counts bytes of content by path. A repository may be private, or gated (its listing is public, its files are not);
tokens maps valid tokens to the gated repositories they may read.

Faults, by path in a repository (they act wherever its content is served):
    cut[path] = [n, ...]     the next answers end after n bytes, the connection is closed
    corrupt.add(path)        a byte in the middle is another one
    ignore_range.add(path)   always the whole file
    bounce.add(path)         a GET of a small file is redirected to the other host
    offer[path] = (checksum, size)   what resolve says, whatever the listing says
    status[path] = [503, ...]        the next answers for its content; or (status, body, headers)
    encoding[path] = "gzip"          what the answers say of its content, whatever it is
    rate = n                 bytes a second on each connection
    hold = n                 content stops while n bytes were sent in all
    headers = {name: value}  more of them in the Hub's answers
    listing = f              what the model information is changed to: another object, or bytes
"""
import hashlib
import http.server
import json
import random
import re
import threading
import time
import urllib.parse

import huggingface_hub.constants

LFS_FROM = 4096
PIECE = 1 << 15


def noise(n, seed=0):
    return random.Random(seed).randbytes(n)


def git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Repo:
    def __init__(self, name, files, private=False, gated=False, licence="apache-2.0"):
        self.name, self.files, self.private, self.gated, self.licence = name, files, private, gated, licence
        self.commit = hashlib.sha1(repr([(n, hashlib.sha256(c).hexdigest()) for n, c in sorted(files.items())]).encode()).hexdigest()

    def checksum(self, path):
        content = self.files[path]
        return hashlib.sha256(content).hexdigest() if self.is_lfs(path) else git_sha1(content)

    def is_lfs(self, path):
        return len(self.files[path]) >= LFS_FROM

    def sibling(self, path):
        content = self.files[path]
        out = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
        if self.is_lfs(path):
            out["lfs"] = {"sha256": self.checksum(path), "size": len(content), "pointerSize": 134}
        return out


class HubServer:
    def __init__(self):
        self.repos, self.tokens, self.requests, self.sent = {}, {}, [], {}
        self.cut, self.corrupt, self.ignore_range, self.bounce = {}, set(), set(), set()
        self.offer, self.status, self.encoding, self.rate, self.hold, self.listing, self.headers = {}, {}, {}, None, None, None, {}
        self.running = []
        self.url, self.content_url = (self._start(kind) for kind in (Hub, Content))

    def _start(self, handler, host="127.0.0.1", port=0):
        server = http.server.ThreadingHTTPServer((host, port), type(handler.__name__, (handler,), {"owner": self}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.running.append(server)
        return f"http://{host}:{server.server_address[1]}"

    def move_content(self):
        """Content comes from another host from now on, at the Hub's own port."""
        self.content_url = self._start(Content, "127.0.0.2", self.running[0].server_address[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self.running:
            server.shutdown()
            server.server_close()

    def environment(self, folder):
        """Variables for programs: an empty machine in a folder, whose Hub is this server."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", "PYMTP_HOME": str(folder / "pymtp"),
                "XDG_CONFIG_HOME": str(folder / "config")}

    def use(self, folder, monkeypatch):
        """The same for this process, where huggingface_hub has read its variables already, and those that it starts."""
        constants = huggingface_hub.constants
        for name, value in {"ENDPOINT": self.url, "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
                            "HF_HUB_CACHE": str(folder / "hf" / "hub"), "HF_TOKEN_PATH": str(folder / "hf" / "token"), "HF_HUB_DISABLE_XET": True}.items():
            monkeypatch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "PYMTP_CATALOGUE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in self.environment(folder).items():
            monkeypatch.setenv(name, value)

    def add(self, name, files, **options):
        """A repository, or its next commit."""
        self.repos[name] = Repo(name, files, **options)
        return self.repos[name]

    def asked(self, host, part=""):
        return [r for r in self.requests if r["host"] == host and part in r["path"]]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host = ""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.owner.requests.append({"host": self.host, "method": self.command, "path": self.path, "authorization": self.headers.get("Authorization"),
                                    "cookie": self.headers.get("Cookie"),
                                    "range": self.headers.get("Range")})
        path, _, query = self.path.partition("?")
        try:
            self.answer(urllib.parse.unquote(path), urllib.parse.parse_qs(query))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        for name, value in self.owner.headers.items():
            self.send_header(name, value)
        if not headers.keys() & {"Content_Length", "Transfer_Encoding"}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self, path, content, headers):
        """Content with ranges, and with the faults of its path."""
        owner = self.owner
        if owner.status.get(path):
            found = owner.status[path].pop(0)
            return self.reply(found) if isinstance(found, int) else self.reply(*found[:2], **found[2])
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        first = int(span[1]) if span and path not in owner.ignore_range else 0
        if first and first >= len(content):
            return self.reply(416, Content_Range=f"bytes */{len(content)}")
        if path in owner.corrupt:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:]
        body = content[first:]
        if first:
            headers = headers | {"Content_Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        if path in owner.encoding:
            headers = headers | {"Content_Encoding": owner.encoding[path]}
        self.send_response(206 if first else 200)
        for name, value in (headers | {"Content_Length": str(len(body)), "Accept_Ranges": "bytes"}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        limit = owner.cut[path].pop(0) if owner.cut.get(path) else len(body)
        for at in range(0, min(limit, len(body)), PIECE):
            while owner.hold is not None and sum(owner.sent.values()) >= owner.hold:
                time.sleep(0.01)
            piece = body[at:min(at + PIECE, limit)]
            self.wfile.write(piece)
            owner.sent[path] = owner.sent.get(path, 0) + len(piece)
            if owner.rate:
                time.sleep(len(piece) / owner.rate)
        if limit < len(body):
            self.close_connection = True
        return None


class Hub(Handler):
    host = "hub"

    def answer(self, path, query):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.owner.tokens:
            return self.reply(401, X_Error_Message="Invalid credentials in Authorization header")
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repo = self.owner.repos.get((api or file or [None, None])[1])
        if repo is None or (repo.private and repo.name not in self.owner.tokens.get(token, ())):
            return self.reply(404 if token else 401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        revision = api[3] if api else file[2]
        if revision not in (None, "main", repo.commit):
            return self.reply(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        return self.describe(repo, api[2] == "tree") if api else self.resolve(repo, file[3], token)

    def describe(self, repo, tree):
        siblings = [repo.sibling(path) for path in sorted(repo.files)]
        if tree:
            out = [{"type": "file", "path": s["rfilename"], "size": s["size"], "oid": s["blobId"]} | ({"lfs": {"oid": s["lfs"]["sha256"], **s["lfs"]}} if "lfs" in s else {})
                   for s in siblings]
        else:
            out = {"_id": "0", "id": repo.name, "modelId": repo.name, "sha": repo.commit, "private": repo.private, "gated": "manual" if repo.gated else False,
                   "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings, "cardData": {"license": repo.licence}}
        if self.owner.listing:
            out = self.owner.listing(out)
        return self.reply(200, out if isinstance(out, bytes) else json.dumps(out).encode(), Content_Type="application/json")

    def resolve(self, repo, path, token):
        if repo.gated and repo.name not in self.owner.tokens.get(token, ()):
            return self.reply(403 if token else 401, X_Error_Code="GatedRepo", X_Error_Message=f"Access to model {repo.name} is restricted.")
        if path not in repo.files:
            return self.reply(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", X_Repo_Commit=repo.commit)
        content = repo.files[path]
        checksum, size = self.owner.offer.get(path, (repo.checksum(path), len(content)))
        location = f"{self.owner.content_url}/{repo.name}/{urllib.parse.quote(path)}?signature={repo.checksum(path)}"
        headers = {"X_Repo_Commit": repo.commit, "ETag": f'"{checksum}"'}
        if repo.is_lfs(path):
            return self.reply(302, Location=location, X_Linked_Etag=f'"{checksum}"', X_Linked_Size=str(size), **headers)
        if path in self.owner.bounce and self.command == "GET":
            return self.reply(302, Location=location)
        return self.serve(path, content, headers)


class Content(Handler):
    host = "content"

    def answer(self, path, query):
        found = re.fullmatch(r"/([^/]+/[^/]+)/(.+)", path)
        repo = self.owner.repos[found[1]]
        if query.get("signature") != [repo.checksum(found[2])]:
            return self.reply(403)
        return self.serve(found[2], repo.files[found[2]], {"ETag": '"content"'})
