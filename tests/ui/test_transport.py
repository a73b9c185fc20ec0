"""The byte route: token, Range, headers; and how the viewer is started."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from results_folder import DONE, image_hu
from starlette.applications import Starlette
from starlette.testclient import TestClient

from medvl.errors import ConfigError
from medvl_pipelines.view import run
from medvl_ui import station as station_module
from medvl_ui.launch import command
from medvl_ui.station import open_station
from medvl_ui.transport import byte_range, picture_url, routes, script_url

RAW = image_hu().astype("<i2").tobytes()


@pytest.fixture
def client(results: Path) -> Iterator[TestClient]:
    open_station(results)
    with TestClient(Starlette(routes=routes())) as client:
        yield client


def test_the_whole_image_arrives_unchanged_uncompressed_and_uncached(client: TestClient) -> None:
    answer = client.get(picture_url(DONE, "image"), headers={"Accept-Encoding": "gzip"})
    assert answer.status_code == 200
    assert answer.content == RAW
    assert answer.headers["content-encoding"] == "identity"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-length"] == str(len(RAW))


def test_one_slice_by_range(client: TestClient) -> None:
    size = 2 * 56 * 48
    answer = client.get(picture_url(DONE, "image"), headers={"Range": f"bytes={30 * size}-{31 * size - 1}"})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {30 * size}-{31 * size - 1}/{len(RAW)}"
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<i2").reshape(56, 48), image_hu()[30])


def test_heat_maps_come_as_bytes_of_their_own_grid(client: TestClient) -> None:
    answer = client.get(picture_url(DONE, "heatmaps/stone_kidney_left.nii.gz"))
    values = np.frombuffer(answer.content, np.uint8).reshape(9, 11, 7)
    assert np.unravel_index(values.argmax(), values.shape) == (4, 5, 3)
    assert values.max() == 255


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, None), ("bytes=0-9", (0, 9)), ("bytes=90-", (90, 99)), ("bytes=-10", (90, 99)), ("bytes=5-1000", (5, 99))],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert byte_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=-", "bytes=100-", "bytes=9-3", "bytes=0-1,5-6", "items=0-1", "bytes=-0"])
def test_bad_ranges_are_refused(client: TestClient, header: str) -> None:
    with pytest.raises(ValueError, match=re.escape(header)):
        byte_range(header, 100)
    url = picture_url(DONE, "image")
    shifted = header.replace("100-", f"{len(RAW)}-")
    answer = client.get(url, headers={"Range": shifted})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(RAW)}"


def test_altered_foreign_and_old_links_open_nothing(client: TestClient, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = picture_url(DONE, "image")
    start = url.rindex(".") + 1  # of the signature; the last letter of base64 holds bits that say nothing
    assert client.get(url[:start] + ("A" if url[start] != "A" else "B") + url[start + 1 :]).status_code == 403
    assert client.get("/medvl/picture/anything").status_code == 403
    monkeypatch.setattr(station_module, "TOKEN_SECONDS", -1)
    assert client.get(url).status_code == 403
    monkeypatch.undo()
    assert client.get(url).status_code == 200
    open_station(results)  # a new process has a new key
    assert client.get(url).status_code == 403


def test_what_is_not_there_is_a_404_that_names_no_path(client: TestClient, results: Path) -> None:
    answer = client.get(picture_url(DONE, "heatmaps/gone.nii.gz"))
    assert answer.status_code == 404
    assert str(results) not in answer.text
    assert client.get(picture_url(DONE, "../b0skipped/findings.json")).status_code == 404


def test_scripts_are_served_by_name_only(client: TestClient) -> None:
    answer = client.get(script_url())
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "export default" in answer.text
    folder = script_url().rsplit("/", 1)[0]
    for name in ("planes.js", "volume.js", "palette.js"):
        assert client.get(f"{folder}/{name}").status_code == 200
    for name in ("page.css", "..%2fstation.py", "station.py"):
        assert client.get(f"{folder}/{name}").status_code == 404


def test_the_server_stays_on_this_machine_and_keeps_quiet(tmp_path: Path) -> None:
    line = command(tmp_path, port=8777, open_browser=False)
    flags = {(name, value) for name, value in pairwise(line) if name.startswith("--")}
    for name, value in {
        "server.address": "127.0.0.1",
        "server.enableXsrfProtection": "true",
        "server.headless": "true",
        "server.port": "8777",
        "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none",
    }.items():
        assert (f"--{name}", value) in flags
    assert line[line.index("--") :][:4] == ["--", str(tmp_path.resolve()), "--auth", "local"]


def test_asking_how_to_start_loads_no_streamlit() -> None:
    code = "import sys, medvl_pipelines.view; print(any(name in sys.modules for name in ('streamlit', 'torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_view_refuses_a_missing_folder_and_a_taken_port(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="medvl infer"):
        run(tmp_path / "none", open_browser=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="in use"):
            run(tmp_path, port=taken.getsockname()[1], open_browser=False)


def test_view_serves_until_it_is_stopped_and_leaves_no_server(results: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = f"run(Path({str(results)!r}), port={port}, open_browser=False)"
    code = f"from pathlib import Path; from medvl_pipelines.view import run; {call}"
    view = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert view.stdout is not None
        assert f"http://127.0.0.1:{port}" in view.stdout.readline()
        assert _answers(port)
    finally:
        view.terminate()
        view.communicate(timeout=30)
    assert view.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def _answers(port: int) -> bool:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).close()
        except OSError:
            time.sleep(0.25)
        else:
            return True
    return False
