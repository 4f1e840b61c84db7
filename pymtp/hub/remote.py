"""Talks to the Hub through huggingface_hub: what a repository holds, and the bytes of its files. Every failure becomes one line.

The token goes to the Hub's own host only. Content mostly lies on another, to which the Hub redirects with a signed address:
requests there carry no authorization.
"""
from __future__ import annotations

import contextlib
import http.cookiejar
import logging
import os
import re
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator
from urllib.parse import urljoin, urlsplit

from huggingface_hub import HfApi, ModelCardData, constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import (DisabledRepoError, EntryNotFoundError, GatedRepoError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled,
                                    RepositoryNotFoundError, RevisionNotFoundError)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from .._text import RAW, printable
from ..errors import HubError
from .types import Unavailable

httpx: Any = sys.modules[HfHubHTTPError.__mro__[1].__module__.partition(".")[0]]  # huggingface_hub's HTTP client: httpx or httpx2

COMMIT = re.compile(r"[0-9a-f]{40}")
AUTHORIZATION = re.compile(r"Bearer [!-~]+")
NO_COOKIES = http.cookiejar.DefaultCookiePolicy(allowed_domains=[])  # of the client that all of the process shares: one that cannot be sent
# back would spoil all later requests
CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def _show(record: logging.LogRecord) -> bool:
    """huggingface_hub writes to stderr what a server's header says (X-HF-Warning), as it is."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


for handler in logging.getLogger("huggingface_hub").handlers:
    handler.addFilter(_show)


class Transient(Exception):
    """A failure that may pass: the text says what happened."""


class Restart(Exception):
    """The server cannot continue in the middle."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at a commit. checksum: SHA-256 in hex when sha256 is set, else git's SHA-1 of the blob."""

    repo: str
    commit: str
    path: str
    size: int
    checksum: str

    @property
    def sha256(self) -> str | None:
        return self.checksum if len(self.checksum) == 64 else None

    @property
    def label(self) -> str:
        return f"{self.repo}/{self.path}"


@dataclass(frozen=True)
class Listing:
    """A repository at its newest commit."""

    repo: str
    commit: str
    files: dict[str, RemoteFile]
    licence: str | None


def listing(repo: str) -> Listing:
    """What the main branch of a repository holds now."""
    def ask() -> Listing:
        _headers(repo)  # HfApi makes its own: here they are only checked
        return _checked(repo, HfApi(library_name="pymtp").model_info(repo, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT))

    return _patiently(repo, ask)


def check_access(file: RemoteFile) -> None:
    """Raises Unavailable when the Hub would not give a file of a repository: a gated one shows its listing to everybody."""
    _patiently(file.label, lambda: _located(file))


def _located(file: RemoteFile) -> Any:
    """Where the Hub says a file lies, and what it says of it. The address may be signed and expire."""
    return get_hf_file_metadata(hf_hub_url(file.repo, file.path, revision=file.commit), headers=_headers(file.label),
                                timeout=constants.HF_HUB_ETAG_TIMEOUT)


def _patiently(what: str, ask: Callable[[], Any]) -> Any:
    for pause in (0.5, 1.0, None):
        try:
            with _explained(what):
                return ask()
        except Transient as error:
            if pause is None:
                raise HubError(f"{what}: {error}") from None
            time.sleep(pause)


def _checked(repo: str, info: Any) -> Listing:
    """A mirror may send anything: names, sizes and checksums become paths and decisions here."""
    if not _is_like(COMMIT, info.sha):
        raise _not_the_hub(repo, f"commit {info.sha!r}")
    files = {}
    for sibling in info.siblings or []:
        checksum = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        size = sibling.lfs.size if sibling.lfs else sibling.size
        if not _is_safe(sibling.rfilename):
            raise _not_the_hub(repo, f"file name {sibling.rfilename!r}")
        if not _is_like(CHECKSUM, checksum) or type(size) is not int or not 0 <= size < 2**63:
            raise _not_the_hub(repo, f"{sibling.rfilename} with size {size!r} and checksum {checksum!r}")
        files[sibling.rfilename] = RemoteFile(repo, info.sha, sibling.rfilename, size, checksum)
    card = info.card_data
    if card and not isinstance(card, ModelCardData):
        raise _not_the_hub(repo, f"card {card!r}")
    return Listing(repo, info.sha, files, _licence(card.license) if card else None)


def _licence(found: Any) -> str | None:
    """A card may say anything; what is shown of it later is a short printable text."""
    return found if isinstance(found, str) and found.isprintable() and 0 < len(found) <= 100 else None


def _is_like(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_safe(path: Any) -> bool:
    """A relative path that stays below its folder, is as long as the system may allow, no deeper than people nest, and can be shown."""
    if not isinstance(path, str) or "\\" in path or RAW.search(path) or len(path.encode()) > 4096 or path.count("/") >= 64:
        return False
    return all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in path.split("/"))


def _not_the_hub(repo: str, found: str) -> HubError:
    return HubError(f"{repo}: {host()} does not answer as the Hub does: found {printable(found)}")


def _endpoint() -> str:
    """HF_ENDPOINT for people: without the user and password that may be in it, whatever characters they have."""
    return re.sub(r"^(\w+://)?.*@", r"\1", constants.ENDPOINT, flags=re.S)


def host() -> str:
    return printable(_endpoint().rpartition("//")[2].partition("/")[0], 100)


def _headers(what: str) -> dict[str, str]:
    """Of a request to the Hub, if this machine can make one: the client reads certificates and proxies when it is made. A token that cannot
    be sent would stand in the client's error, or be blamed on the server."""
    try:
        get_session().cookies.jar.set_policy(NO_COOKIES)
        headers = build_hf_headers(library_name="pymtp")
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError):  # OSErrors too; a token may have to be renewed first
        raise
    except OSError as error:
        raise HubError(f"{error.filename or what + ': no request can be made'}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        headers = {"authorization": ""}
    except Exception as error:  # a proxy that is none, a module that it needs, an identity (OIDC) that is not there
        raise HubError(f"{what}: no request can be made: {error}") from None
    if not AUTHORIZATION.fullmatch(headers.get("authorization", "Bearer -")):
        source = next((name for name in ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), constants.HF_TOKEN_PATH)
        raise HubError(f"{source}: expected a token of printable ASCII characters without spaces")
    return headers


# ---- content ----


@contextlib.contextmanager
def content(file: RemoteFile, offset: int) -> Iterator[Iterator[bytes]]:
    """The bytes of a file from an offset on. Asks the Hub for the address each time."""
    with _explained(file.label):
        found, headers = _located(file), _headers(file.label)
        if found.etag and found.etag != file.checksum:
            raise HubError(f"{file.label}: {host()} contradicts itself: listed with checksum {file.checksum}, offered with {printable(found.etag)}")
        _check_size(file, found.size)
        location = urljoin(constants.ENDPOINT, found.location)
        if _origin(location) != _origin(constants.ENDPOINT):
            headers.pop("authorization", None)
    headers["Accept-Encoding"] = "identity"
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with _explained(file.label), get_session().stream("GET", location, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
                                                       follow_redirects=True) as response:
        _check_answer(file, offset, response)
        yield response.iter_raw()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _check_size(file: RemoteFile, size: int | None) -> None:
    if size is not None and size != file.size:
        raise HubError(f"{file.label}: {host()} contradicts itself: listed with {file.size} bytes, offered with {size}")


def _check_answer(file: RemoteFile, offset: int, response: Any) -> None:
    """Refuses an answer that is not the rest of the file."""
    if response.status_code == 416 or (offset and response.status_code == 200):
        raise Restart
    if response.status_code in (403, 404, 410) and _origin(str(response.url)) != _origin(constants.ENDPOINT):
        raise Transient(f"{printable(response.url.host, 100)} answered {response.status_code}")  # an address that expired
    hf_raise_for_status(response)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":  # sizes and ranges are those of the file; a small body could unfold into any amount
        raise HubError(f"{file.label}: expected content without encoding, found Content-Encoding {encoding[:60]!r} "
                       f"from {printable(response.url.host, 100)}")
    length = response.headers.get("Content-Length")
    if response.status_code == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not span or int(span[1]) != offset:
            raise Restart
        _check_size(file, None if span[2] == "*" else int(span[2]))
    elif length is not None and length.isdigit():
        _check_size(file, int(length))


# ---- failures ----


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Failures of huggingface_hub and its HTTP client as HubError, or Transient where waiting may help."""
    try:
        yield
    except OfflineModeIsEnabled:
        raise HubError(f"{what}: offline, as HF_HUB_OFFLINE says") from None
    except HFValidationError as error:
        raise HubError(f"{what}: {error}") from None
    except HfHubHTTPError as error:
        raise _refused(what, error) from None
    except httpx.HTTPError as error:
        raise Transient(f"{_host_of(error)}: {_reason(error)}") from None
    except httpx.InvalidURL as error:
        reason = "no address" if "@" in constants.ENDPOINT else error  # which may quote a password
        raise HubError(f"{what}: HF_ENDPOINT '{_endpoint()}': {reason}") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:  # JSON of another form than the Hub's
        raise _not_the_hub(what, f"{type(error).__name__}: {error}") from None


def _refused(what: str, error: HfHubHTTPError) -> Exception:
    status, token = error.response.status_code, "authorization" in build_hf_headers()
    repo = "/".join(what.split("/")[:2])
    if isinstance(error, GatedRepoError):
        ask = f"{repo}: gated: accept its terms at {_endpoint()}/{repo}"
        return Unavailable(f"{ask} with the account of your token" if token else f"{ask}, then set HF_TOKEN or run `hf auth login`")
    if isinstance(error, DisabledRepoError):
        return Unavailable(f"{repo}: access is disabled by {host()}")
    if isinstance(error, RepositoryNotFoundError):
        hint = "or your token has no access" if token else "or private: then set HF_TOKEN or run `hf auth login`"
        return Unavailable(f"{repo}: no such repository at {host()}, {hint}")
    if isinstance(error, (RevisionNotFoundError, EntryNotFoundError)):
        return Unavailable(f"{what}: no longer at {host()}")
    if status in (401, 403):
        return Unavailable(f"{what}: {host()} refuses the token (HF_TOKEN, or that of `hf auth login`)" if token
                        else f"{what}: {host()} refuses access without a token: set HF_TOKEN or run `hf auth login`")
    if status in (408, 429) or status >= 500:
        return Transient(f"{_host_of(error)} answered {status}")
    return Unavailable(f"{what}: {_host_of(error)} answered {status}")


def _host_of(error: Any) -> str:
    try:
        return printable(error.request.url.netloc.decode(), 100)
    except (AttributeError, RuntimeError):
        return host()


def _reason(error: BaseException) -> str:
    """The system's words for a failed connection where there are some."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, socket.gaierror):
            return "unknown host or no network"
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, HfHubHTTPError):
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__
