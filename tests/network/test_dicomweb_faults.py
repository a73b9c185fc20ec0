"""Servers that fail in every way: each becomes "later" or "no", and nothing that they say or hold gets into a message."""

from __future__ import annotations

import contextlib
import gc
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from network_ct import write
from orthanc import free_port

from medvl.errors import InputError
from medvl.network import dicomweb, store_scu
from medvl.network.access import Access
from medvl.network.address import PeerAddress, WebAddress
from medvl.network.dicomweb import DicomWeb
from medvl.network.errors import retryable
from medvl.network.multipart import parts

STUDY = "2.25.77"
Handler = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def serving(handle: Handler, certificate: Path | None = None) -> Iterator[str]:
    """An HTTP server whose every answer is `handle`; its address."""

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            handle(self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            handle(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}/planted"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def say(status: int, body: bytes = b"", kind: str = "application/dicom+json", **headers: str) -> Handler:
    """An answer that is always the same."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content_Type": kind, "Content_Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return handle


def client(url: str, access: Access | None = None, **options: Any) -> DicomWeb:
    """A client with one filter that names a patient."""
    return DicomWeb(WebAddress(url, {"PatientID": "planted"}), access, **{"timeout_s": 2.0, **options})


@pytest.mark.parametrize(
    ("answer", "code"),
    [(say(status), "pacs_unreachable") for status in (408, 429, 500, 502, 503, 504)]
    + [(say(status), "pacs_refused") for status in (400, 401, 403, 404, 413, 501)]
    + [
        (say(200, b"<html>planted</html>", "text/html"), "pacs_refused"),
        (say(200, b'["planted"]'), "pacs_refused"),
        (say(302, Location="http://planted/"), "pacs_refused"),
        (say(200, b"[]", Content_Length="50"), "pacs_unreachable"),
        (lambda _request: None, "pacs_unreachable"),
    ],
)
def test_a_search_that_fails(answer: Handler, code: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with serving(answer) as url, client(url, Access(token="planted")) as pacs, pytest.raises(InputError) as caught:
        list(pacs.studies())
    assert caught.value.code == code
    assert retryable(caught.value) == (code == "pacs_unreachable")
    assert "planted" not in "".join(traceback.format_exception_only(caught.value)).lower()
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "planted" not in caplog.text.lower()


# pynetdicom forgets to close a socket that never got connected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nobody_there() -> None:
    with client(f"http://127.0.0.1:{free_port()}/planted") as pacs, pytest.raises(InputError, match="no connection") as caught:
        pacs.echo()
    assert retryable(caught.value)
    with pytest.raises(InputError) as caught:
        store_scu.echo(PeerAddress("PACS", "127.0.0.1", free_port()), timeout_s=2)
    assert retryable(caught.value)
    gc.collect()


def test_a_server_that_never_answers() -> None:
    over = threading.Event()
    with serving(lambda _request: over.wait(10) and None) as url, client(url, timeout_s=0.2) as pacs:
        with pytest.raises(InputError, match="in time") as caught:
            pacs.echo()
        over.set()
    assert retryable(caught.value)


def test_tls_by_an_own_authority(tmp_path: Path, own_ca: Callable[[Path], tuple[Path, Path]]) -> None:
    ca, server = own_ca(tmp_path / "pki")
    with serving(say(200, b"[]"), server) as url:
        with client(url, Access(ca_bundle=ca)) as pacs:
            assert pacs.echo() < 10
        with client(url) as pacs, pytest.raises(InputError, match="certificate") as caught:
            pacs.echo()
        assert caught.value.code == "pacs_refused"
        with client(url.replace("127.0.0.1", "127.0.0.2"), Access(ca_bundle=ca)) as pacs, pytest.raises(InputError):
            pacs.echo()


def test_the_login_goes_to_the_server_and_the_environment_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    heard: list[tuple[str | None, str | None]] = []

    def handle(request: BaseHTTPRequestHandler) -> None:
        heard.append((request.headers["Authorization"], request.headers["Host"]))
        say(200, b"[]")(request)

    with serving(handle) as url:
        for access in (Access(user="né", password="pa:ss"), Access(token="abc"), None):
            with client(url, access) as pacs:
                pacs.echo()
        host = urlsplit(url).netloc
    assert heard == [("Basic bsOpOnBhOnNz", host), ("Bearer abc", host), (None, host)]


def match(number: int) -> str:
    """A study in DICOM JSON."""
    return f'{{"0020000D": {{"vr": "UI", "Value": ["2.25.{number}"]}}, "00201208": {{"vr": "IS"}}}}'


@pytest.mark.parametrize("kind", ["right", "few", "no_offset", "odd_limit"])
def test_every_study_once_from_servers_that_page_in_their_own_way(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", 5)

    def handle(request: BaseHTTPRequestHandler) -> None:
        asked = parse_qs(urlsplit(request.path).query)
        offset, limit = int(asked["offset"][0]), int(asked["limit"][0])
        limit = min(limit, 2) if kind == "few" else limit
        offset = 0 if kind == "no_offset" else offset
        last = limit if kind == "odd_limit" else offset + limit
        say(200, f"[{','.join(match(n) for n in range(17)[offset:last])}]".encode())(request)

    with serving(handle) as url, client(url) as pacs:
        found = list(pacs.studies())
    assert [one.study_uid for one in found] == [f"2.25.{n}" for n in range(17)]
    assert found[0].n_instances is None
    assert "2.25" not in repr(found)


def pacs_with(files: list[bytes], listed: int, cut: int = 0) -> Handler:
    """A server with a series of these files that lists `listed` images and leaves out the last `cut` bytes of its answer."""
    series = f'[{{"0020000E": {{"Value": ["2.25.5"]}}, "00080060": {{"Value": ["CT"]}}, "00201209": {{"Value": [{listed}]}}}}]'
    body = b"".join(b"--x y\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files) + b"--x y--\r\n"

    def handle(request: BaseHTTPRequestHandler) -> None:
        if "series?" in request.path:
            say(200, series.encode())(request)
        else:
            say(200, body[: len(body) - cut], 'multipart/related; type="application/dicom"; boundary="x y"')(request)

    return handle


def dicoms(folder: Path, n: int) -> list[bytes]:
    """Bytes of `n` files."""
    return [path.read_bytes() for path in write(folder, n)]


def test_an_answer_cut_short_is_fetched_again_and_leaves_nothing_wrong(tmp_path: Path) -> None:
    files = dicoms(tmp_path / "ct", 3)
    into = tmp_path / "into"
    for broken in (pacs_with(files, 3, cut=9), pacs_with(files, 3, cut=3000), pacs_with(files[:2], 3)):
        with serving(broken) as url, client(url) as pacs, pytest.raises(InputError) as caught:
            pacs.fetch(STUDY, into, max_bytes=1 << 20)
        assert retryable(caught.value)
    with serving(pacs_with(files, 3)) as url, client(url) as pacs:
        assert pacs.fetch(STUDY, into, max_bytes=1 << 20) == 3
    assert [path.read_bytes() for path in sorted(into.glob("*.dcm"))] == files
    with serving(pacs_with([], 3)) as url, client(url) as pacs:
        assert pacs.fetch(STUDY, into, max_bytes=1 << 20) == 3, "a whole series is not asked for again"
    (into / "000002.dcm").write_bytes(b"")
    with serving(pacs_with(files, 3)) as url, client(url) as pacs:
        assert pacs.fetch(STUDY, into, max_bytes=1 << 20) == 3
    assert [path.read_bytes() for path in sorted(into.glob("*.dcm"))] == files
    more = dicoms(tmp_path / "more", 4)
    with serving(pacs_with(more, 4)) as url, client(url) as pacs:
        assert pacs.fetch(STUDY, into, max_bytes=1 << 20) == 4, "the study changed in the PACS"
    assert [path.read_bytes() for path in sorted(into.glob("*.dcm"))] == more


def test_what_is_no_dicom_or_too_large_is_refused(tmp_path: Path) -> None:
    files = dicoms(tmp_path / "ct", 2)
    for content, limit, code in ((files, 3000, "too_large"), ([b"<html>planted" * 99], 1 << 20, "pacs_refused")):
        with serving(pacs_with(content, 1)) as url, client(url) as pacs, pytest.raises(InputError) as caught:
            pacs.fetch(STUDY, tmp_path / code, max_bytes=limit)
        assert caught.value.code == code
        assert sum(path.stat().st_size for path in (tmp_path / code).iterdir()) <= limit
    for uid in ("../../x", "", "1.2/3"):
        with client("http://127.0.0.1:1") as pacs, pytest.raises(InputError) as caught:
            pacs.fetch(uid, tmp_path / "x", max_bytes=1)
        assert caught.value.code == "pacs_refused"


def stow(failed: dict[str, int], kept: list[str]) -> bytes:
    """An answer of STOW-RS in DICOM JSON."""
    bad = [f'{{"00081155": {{"Value": ["{uid}"]}}, "00081197": {{"Value": [{reason}]}}}}' for uid, reason in failed.items()]
    good = [f'{{"00081155": {{"Value": ["{uid}"]}}}}' for uid in kept]
    return f'{{"00081198": {{"Value": [{",".join(bad)}]}}, "00081199": {{"Value": [{",".join(good)}]}}}}'.encode()


def test_what_the_server_says_of_each_object_counts(tmp_path: Path) -> None:
    files = write(tmp_path, 5, study=STUDY, series="2.25.8")
    uids = [f"2.25.8.{n}" for n in range(1, 6)]
    said = stow({uids[1]: 0x0111, uids[2]: 0xA700, uids[3]: 0x0110}, [uids[0]])

    def handle(request: BaseHTTPRequestHandler) -> None:
        if request.command == "POST":
            say(202, said)(request)
        else:
            there = uids[4] in request.path
            say(200, f'[{{"00080018": {{"Value": ["{uids[4]}"]}}}}]'.encode() if there else b"[]")(request)

    with serving(handle) as url, client(url) as pacs:
        answers = pacs.store(files)
    assert [one.sop_uid for one in answers] == uids
    assert [(one.stored, one.already, one.retryable) for one in answers] == [
        (True, False, False),
        (True, True, False),
        (False, False, True),
        (False, False, False),
        (True, True, False),
    ]
    assert "2.25" not in repr(answers)
    with serving(say(200, b"")) as url, client(url) as pacs:
        assert all(one.stored for one in pacs.store(files))
    for status, code in ((409, "pacs_refused"), (401, "pacs_refused"), (503, "pacs_unreachable")):
        with serving(say(status)) as url, client(url) as pacs, pytest.raises(InputError) as caught:
            pacs.store(files)
        assert caught.value.code == code


@pytest.mark.parametrize("size", [1, 2, 7, 64, 4096])
def test_parts_do_not_depend_on_how_the_network_cuts_them(size: int) -> None:
    contents = [b"", b"\r\n", b"--b", b"\r\n--", b"\r\n--a", b"x" * 500 + b"\r\n--boundar", b"\0" * 99]
    body = b"preamble\r\n" + b"".join(b"--boundary\r\nA: b\r\n\r\n" + one + b"\r\n" for one in contents) + b"--boundary--trailer"
    got: list[bytes] = []
    for kind, data in parts((body[at : at + size] for at in range(0, len(body), size)), b"boundary"):
        if kind == "start":
            got.append(b"")
        else:
            got[-1] += data
    assert got == contents
    with pytest.raises(InputError, match="stopped in the middle"):
        list(parts([body[:-30]], b"boundary"))
