"""A file from a web server, whole and checked: broken transfers go on where they stopped, a wrong hash is refused.

What has come so far lies in a `.part` file, and beside it what the server said of the file that it is the beginning of.
One process at a time may work on it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from .progress import show_progress

TIMEOUT = 30.0  # seconds without a single byte
MEBIBYTE = 2**20
_CHUNK = 2**16
_KEPT = "what came is kept; run the same command again to go on"


class _Version(NamedTuple):
    """What tells one version of a file on a server from another; size in bytes."""

    etag: str | None
    last_modified: str | None
    size: int | None

    @property
    def validator(self) -> str | None:
        """What If-Range takes: a strong ETag, or a date (RFC 9110, section 13.1.5)."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if strong else self.last_modified


class _Redirects(HTTPRedirectHandler):
    """Follows a redirection, but not out of https, nor to anything else than the web."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """See the base class; OSError for an address that is not followed."""
        if urlsplit(newurl).scheme not in (req.type, "https"):
            raise OSError(f"{req.full_url} leads to {newurl}, which is not followed: it is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def fetched(address: str, part: Path, *, sha256_prefix: str) -> Iterator[str]:
    """The file at `address` (http or https) lies whole in `part` during the block, which gets its SHA-256.

    `part` is removed when the block has ended well, and kept when the transfer or the block fails, so that the next
    call goes on with it. A file of another hash is removed. Raises ValueError for a wrong address or hash, OSError for
    what fails on the way or on the disk, also where another process is at work on `part`.
    """
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise ValueError(f"{address!r} is no web address; expected one that begins with https:// or http://")
    with _alone(part) as file:
        digest = _sha256(file)
        begun = file.tell() > 0
        if not digest.startswith(sha256_prefix):
            digest = _complete(address, file, part)
        if not digest.startswith(sha256_prefix) and begun:  # its old beginning may be another file's: once more, anew
            file.truncate(0)
            digest = _complete(address, file, part)
        if not digest.startswith(sha256_prefix):
            _discard(part)
            raise ValueError(
                f"{address} has a SHA-256 that begins with {digest[: len(sha256_prefix)]}, expected {sha256_prefix}: "
                "it is damaged or another file, and was thrown away"
            )
        yield digest
        _discard(part)


@contextmanager
def _alone(part: Path) -> Iterator[IO[bytes]]:
    """`part`, made where it is missing, open for this process only; OSError where another one has it."""
    with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        busy = f"{part} is being fetched by another process; wait until it is done"
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(busy) from None
        if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
            raise BlockingIOError(busy)  # it was finished and removed between the opening and the lock
        try:
            yield file
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                _discard(part)


def _complete(address: str, file: IO[bytes], part: Path) -> str:
    """Bring what is missing in `file`; the SHA-256 of all of it. OSError in one line where it breaks off."""
    known = _read_version(part)
    start = os.fstat(file.fileno()).st_size if known else 0
    response, start = _open(address, start, known)
    with response:
        version = _version_of(response)
        file.truncate(start)
        file.seek(start)
        with _named(_version_file(part)):
            _version_file(part).write_text(json.dumps(version._asdict()), encoding="utf-8")
        left = None if version.size is None else version.size - start
        for chunk in _shown(_chunks(response, address), left):
            _write(file, chunk, part)
    came = file.tell()
    if version.size is not None and came < version.size:
        raise OSError(f"{address} broke off after {came} of {version.size} bytes; {_KEPT}")
    return _sha256(file)


def _open(address: str, start: int, known: _Version | None) -> tuple[HTTPResponse, int]:
    """The server's answer, and the byte at which its content begins: `start` where the server goes on there, or 0."""
    if known and start:
        headers = {"Range": f"bytes={start}-"} | ({"If-Range": known.validator} if known.validator else {})
        response = _request(address, headers)
        if response is not None and response.status != 206:
            return response, 0
        if response is not None and _first_byte(response) == start and _version_of(response) == known:
            return response, start
        if response is not None:
            response.close()
    response = _request(address, {})
    if response is None or response.status != 200:
        raise OSError(f"{address}: the server answers with a part of the file where all of it was asked for")
    return response, 0


def _request(address: str, headers: dict[str, str]) -> HTTPResponse | None:
    """The answer, or None where the server has nothing from that byte on; OSError in one line."""
    request = Request(address, headers={"User-Agent": "swiftsight", **headers})  # noqa: S310 (the scheme was checked)
    try:
        response: HTTPResponse = build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            return None
        raise OSError(f"{address}: the server says {error.code} {error.reason}") from None
    except URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise OSError(f"cannot reach {urlsplit(address).netloc}: {reason}; is there a network?") from None
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise OSError(f"{address}: {_reason(error)}") from None
    return response


def _chunks(response: HTTPResponse, address: str) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (HTTPException, OSError) as error:
        raise OSError(f"{address} broke off ({_reason(error)}); {_KEPT}") from None


def _shown(chunks: Iterator[bytes], left: int | None) -> Iterator[bytes]:
    """The same chunks with their progress; left: bytes, None where the server does not say how many."""
    total = math.inf if left is None else left / MEBIBYTE
    return show_progress(chunks, total, "MiB", amount=lambda chunk: len(chunk) / MEBIBYTE)


def _write(file: IO[bytes], chunk: bytes, part: Path) -> None:
    rest = memoryview(chunk)
    with _named(part):
        while rest:
            rest = rest[file.write(rest) :]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the disk say which file did not fit."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; {_KEPT}", str(path)) from None


def _sha256(file: IO[bytes]) -> str:
    """Of the whole file, which then stands at its end."""
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(MEBIBYTE):
        digest.update(chunk)
    return digest.hexdigest()


def _version_of(response: HTTPResponse) -> _Version:
    """What the answer says of the whole file, also where it brings a part of it."""
    if response.status == 206:
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = response.headers.get("Content-Length", "")
    return _Version(
        response.headers.get("ETag"), response.headers.get("Last-Modified"), int(size) if size.isdecimal() else None
    )


def _first_byte(response: HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_version(part: Path) -> _Version | None:
    """What was noted when `part` was begun; None where that is lost, and it must be begun anew."""
    try:
        return _Version(**json.loads(_version_file(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _discard(part: Path) -> None:
    _version_file(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
