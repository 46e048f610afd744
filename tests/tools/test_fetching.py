"""Downloads from a server on the loopback address: whole, broken, resumed, refused, two at once."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from swiftsight_tools import fetching

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(ThreadingHTTPServer):
    """One file at /file; how it is served can be changed between requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.last_modified: str | None = None
        self.knows_range = True
        self.heeds_if_range = True
        self.says_size = True
        self.stop_after: int | None = None
        self.requests: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/file")
            self.end_headers()
            return
        if self.path != "/file":
            self.send_error(404)
            return
        start = self._start()
        if start >= len(server.content):
            self.send_error(416)
            return
        rest = server.content[start:]
        self.send_response(206 if start else 200)
        if server.says_size:
            self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.last_modified:
            self.send_header("Last-Modified", server.last_modified)
        self.end_headers()
        self.wfile.write(rest[: server.stop_after])

    def _start(self) -> int:
        asked = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        changed = (
            condition is not None
            and condition not in (self.server.etag, self.server.last_modified)
            and self.server.heeds_if_range
        )
        if asked is None or changed or not self.server.knows_range:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


def fetch(server: Server, part: Path, prefix: str = PREFIX) -> bytes:
    with fetching.fetched(server.address, part, sha256_prefix=prefix) as digest:
        content = part.read_bytes()
        assert digest == hashlib.sha256(content).hexdigest()
    return content


def break_off(server: Server, part: Path, after: int) -> None:
    """Leaves the first bytes in `part`."""
    server.stop_after = after
    with pytest.raises(OSError, match=rf"broke off after {after} of 512000 bytes; .* run the same command again"):
        fetch(server, part)
    server.stop_after = None
    assert part.read_bytes() == CONTENT[:after]


def left_in(part: Path) -> list[str]:
    return sorted(path.name for path in part.parent.iterdir())


def test_a_whole_file_is_there_during_the_block_and_nothing_is_left(server: Server, part: Path, capsys) -> None:
    assert fetch(server, part) == CONTENT
    assert left_in(part) == []
    assert capsys.readouterr().err == "0.5 MiB in 0 s\n"


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, part: Path) -> None:
    break_off(server, part, 100_000)
    assert fetch(server, part) == CONTENT
    assert "Range" not in server.requests[0]
    assert (server.requests[1]["Range"], server.requests[1]["If-Range"]) == ("bytes=100000-", '"one"')
    assert left_in(part) == []


def test_a_server_without_ranges_sends_everything_again(server: Server, part: Path) -> None:
    break_off(server, part, 100_000)
    server.knows_range = False
    assert fetch(server, part) == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("etag", ['"two"', 'W/"two"', None])
def test_a_file_that_changed_on_the_server_is_begun_anew(
    server: Server, part: Path, heeds_if_range: bool, etag: str | None
) -> None:
    break_off(server, part, 100_000)
    server.content = CONTENT[::-1]
    server.etag, server.heeds_if_range = etag, heeds_if_range
    assert fetch(server, part, hashlib.sha256(server.content).hexdigest()[:8]) == server.content
    assert len(server.requests) == (2 if heeds_if_range else 3)


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_a_date_is_asked_for_where_there_is_no_strong_etag(server: Server, part: Path, etag: str | None) -> None:
    server.etag, server.last_modified = etag, "Sat, 21 Nov 2026 08:00:00 GMT"
    break_off(server, part, 100_000)
    assert fetch(server, part) == CONTENT
    assert server.requests[1]["If-Range"] == "Sat, 21 Nov 2026 08:00:00 GMT"
    assert len(server.requests) == 2


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_nothing_of_an_old_version_is_kept(server: Server, part: Path, heeds_if_range: bool) -> None:
    break_off(server, part, 100_000)
    server.content, server.etag, server.heeds_if_range = CONTENT[::-1], '"two"', heeds_if_range
    server.stop_after = 5000
    with pytest.raises(OSError, match="broke off after 5000 of 512000 bytes"):
        fetch(server, part)
    assert part.read_bytes() == server.content[:5000]


def test_a_change_that_nothing_tells_of_is_found_by_the_hash(server: Server, part: Path) -> None:
    server.etag = None
    break_off(server, part, 100_000)
    server.content = CONTENT[::-1]
    assert fetch(server, part, hashlib.sha256(server.content).hexdigest()[:8]) == server.content
    assert [request.get("Range") for request in server.requests] == [None, "bytes=100000-", None]


def test_a_shorter_file_than_what_came_already(server: Server, part: Path) -> None:
    break_off(server, part, 100_000)
    server.content, server.heeds_if_range = b"short", False
    assert fetch(server, part, hashlib.sha256(b"short").hexdigest()[:8]) == b"short"


def test_what_came_is_begun_anew_where_its_version_is_not_known(server: Server, part: Path) -> None:
    break_off(server, part, 100_000)
    part.with_name("file.part.json").write_text("{")
    assert fetch(server, part) == CONTENT
    assert "Range" not in server.requests[1]


def test_a_wrong_hash_is_refused_and_thrown_away(server: Server, part: Path) -> None:
    with pytest.raises(ValueError, match=rf"/file has a SHA-256 .* {PREFIX}, expected 00000000") as caught:
        fetch(server, part, "00000000")
    assert "\n" not in str(caught.value)
    assert left_in(part) == []
    assert len(server.requests) == 1


def test_a_block_that_fails_keeps_the_file_for_the_next_call(server: Server, part: Path) -> None:
    with (
        pytest.raises(ValueError, match="no net"),
        fetching.fetched(server.address, part, sha256_prefix=PREFIX),
    ):
        raise ValueError("no net")
    assert fetch(server, part) == CONTENT
    assert len(server.requests) == 1


def test_a_server_that_does_not_say_how_much_it_has(server: Server, part: Path) -> None:
    server.says_size = False
    assert fetch(server, part) == CONTENT
    server.stop_after = 1000
    with pytest.raises(ValueError, match="SHA-256"):
        fetch(server, part)
    assert left_in(part) == []


def test_a_file_that_is_not_there(server: Server, part: Path) -> None:
    with (
        pytest.raises(OSError, match=r"^http://127.0.0.1:\d+/none: the server says 404 Not Found$"),
        fetching.fetched(server.address.replace("file", "none"), part, sha256_prefix=PREFIX),
    ):
        pass
    assert left_in(part) == []


def test_a_redirection_out_of_the_web_is_not_followed(server: Server, part: Path) -> None:
    with (
        pytest.raises(OSError, match=r"/elsewhere leads to ftp://127\.0\.0\.1/file, which is not followed"),
        fetching.fetched(server.address.replace("file", "elsewhere"), part, sha256_prefix=PREFIX),
    ):
        pass


def test_nobody_listens(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        pytest.raises(OSError, match=rf"^cannot reach 127.0.0.1:{port}: Connection refused; is there a network\?$"),
        fetching.fetched(f"http://127.0.0.1:{port}/file", part, sha256_prefix=PREFIX),
    ):
        pass
    assert left_in(part) == []


def test_a_server_that_falls_silent(server: Server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}/file"
        with (
            pytest.raises(OSError, match=r"^http://127.0.0.1:\d+/file: timed out$"),
            fetching.fetched(address, part, sha256_prefix=PREFIX),
        ):
            pass


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/file", "download.pytorch.org/models", ""])
def test_what_is_no_web_address(part: Path, address: str) -> None:
    with (
        pytest.raises(ValueError, match="is no web address; expected one that begins with https://"),
        fetching.fetched(address, part, sha256_prefix=PREFIX),
    ):
        pass
    assert left_in(part) == []


def test_a_full_disk_names_the_file_and_keeps_what_came(
    server: Server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = fetching._write, []

    def write(file, chunk, path):
        real(_Full(file) if len(written) == 2 else file, chunk, path)
        written.append(len(chunk))

    monkeypatch.setattr(fetching, "_write", write)
    with pytest.raises(OSError, match="No space left on device; what came is kept") as caught:
        fetch(server, part)
    assert caught.value.filename == str(part)
    assert part.read_bytes() == CONTENT[: sum(written)]
    monkeypatch.undo()
    assert fetch(server, part) == CONTENT
    assert server.requests[1]["Range"] == f"bytes={sum(written)}-"


class _Full:
    def __init__(self, file: object) -> None:
        pass

    def write(self, _content: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_ctrl_c_keeps_what_came(server: Server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = fetching._write, []

    def write(file, chunk, path):
        if len(written) == 3:
            raise KeyboardInterrupt
        real(file, chunk, path)
        written.append(len(chunk))

    monkeypatch.setattr(fetching, "_write", write)
    with pytest.raises(KeyboardInterrupt):
        fetch(server, part)
    assert part.read_bytes() == CONTENT[: sum(written)]
    monkeypatch.undo()
    assert fetch(server, part) == CONTENT
    assert server.requests[1]["Range"] == f"bytes={sum(written)}-"


def test_of_two_at_once_the_second_is_told_to_wait(server: Server, part: Path) -> None:
    with fetching.fetched(server.address, part, sha256_prefix=PREFIX):
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        other = context.Process(target=_try_to_fetch, args=(server.address, part, answers))
        other.start()
        answer = answers.get(timeout=30)
        other.join()
        assert answer == f"{part} is being fetched by another process; wait until it is done"
        assert part.read_bytes() == CONTENT
    assert left_in(part) == []


def _try_to_fetch(address: str, part: Path, answers) -> None:
    try:
        with fetching.fetched(address, part, sha256_prefix=PREFIX):
            answers.put("fetched")
    except OSError as error:
        answers.put(str(error))
