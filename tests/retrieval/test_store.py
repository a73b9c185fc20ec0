"""The index on disk: what goes in comes out, strangers are refused, deletion, compaction, readers beside a writer, kills."""

import multiprocessing
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import SPACE, built, entries, vectors

from medvl.errors import ConfigError
from medvl.retrieval.filters import Condition
from medvl.retrieval.search import search, similar
from medvl.retrieval.store import Index


def test_what_is_added_is_found_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    built(tmp_path / "i").close()
    cases, given = entries(300), vectors(300)
    with Index.open(tmp_path / "i") as index:
        assert (index.space, len(index), index.verify()) == (SPACE, 300, [])
        hit = search(index, given["image"][131], 1).hits[0]
        assert hit.entry == cases[131]
        assert hit.score == pytest.approx(1, abs=1e-7)
        told = index.about()
    assert (told["cases"], told["patients"], told["vectors"]) == (300, 150, {"image": 300, "report": 300})


def test_vectors_of_another_model_or_width_are_refused(tmp_path: Path) -> None:
    index = built(tmp_path / "i", 10)
    case, one = entries(1, 50), vectors(1)
    for name, value in (("model_sha256", "c" * 64), ("contract_hash", "d" * 64), ("width", 25)):
        with pytest.raises(ConfigError, match=f"the index holds {name}.*mean nothing"):
            index.add(case, one, replace(SPACE, **{name: value}))
    with pytest.raises(ConfigError, match="mean nothing"):
        Index.create(tmp_path / "i", replace(SPACE, model_sha256="c" * 64))
    with pytest.raises(ConfigError, match=r"vectors are \(1, 9\)"):
        index.add(case, {k: v[:, :9] for k, v in one.items()}, SPACE)
    with pytest.raises(ConfigError, match="no direction"):
        index.add(case, {k: v * 0 for k, v in one.items()}, SPACE)
    with pytest.raises(ConfigError, match="takes vectors of image, report; given: image"):
        index.add(case, {"image": one["image"]}, SPACE)
    with pytest.raises(ConfigError, match="not image; build another"):
        Index.create(tmp_path / "i", SPACE, fields=("image",))
    assert (len(index), index.verify()) == (10, [])


def test_an_id_that_is_there_is_refused_or_replaced(tmp_path: Path) -> None:
    index = built(tmp_path / "i", 10)
    newer, given = [replace(entries(4)[3], report="New words."), *entries(2, 10)], vectors(3, seed=9)
    with pytest.raises(ConfigError, match="1 of 3 cases are in the index already, P1/kidney_right first"):
        index.add(newer, given, SPACE)
    assert len(index) == 10
    assert index.add(newer, given, SPACE, replace=True) == 3
    assert len(index) == 12
    assert search(index, given["image"][0], 1).hits[0].entry.report == "New words."
    assert len(search(index, given["image"][0], 100, where="id=P1/kidney_right").hits) == 1
    with pytest.raises(ConfigError, match="given twice"):
        index.add([newer[0], newer[0]], {k: v[:2] for k, v in given.items()}, SPACE, replace=True)


def test_deleted_cases_are_gone_at_once_and_from_the_disk_after_compaction(tmp_path: Path) -> None:
    index, given = built(tmp_path / "i"), vectors(300)
    secret = np.asarray(given["image"][42] / np.linalg.norm(given["image"][42]), dtype=np.float32).tobytes()
    assert index.delete(patients=["P21"], ids=["P3/kidney_left", "no such"]) == 3
    for _ in range(2):
        found = search(index, given["image"][42], 400)
        assert len(found.hits) == 297
        assert {h.entry.patient for h in found.hits} & {"P21"} == set()
        index.compact()
    with pytest.raises(ConfigError, match="no case P3/kidney_left"):
        similar(index, "P3/kidney_left")
    assert index.verify() == []
    assert index.about()["deleted_rows"] == 0
    kept = b"".join(p.read_bytes() for p in (tmp_path / "i").rglob("*.f32"))
    assert secret not in kept
    assert similar(index, "P100/kidney_right", 1).hits
    assert index.add(entries(2, 400), vectors(2, seed=3), SPACE) == 2
    assert (index.verify(), len(list((tmp_path / "i").glob("vectors-*")))) == ([], 1)


def test_a_changed_bit_or_a_short_file_is_noticed(tmp_path: Path) -> None:
    built(tmp_path / "i").close()
    path = next((tmp_path / "i").rglob("image-00001.f32"))
    raw = bytearray(path.read_bytes())
    raw[1000] ^= 1
    path.write_bytes(raw)
    with Index.open(tmp_path / "i") as index:
        assert any("not those that were added" in text for text in index.verify())
    path.write_bytes(raw[:-4])
    with Index.open(tmp_path / "i") as index, pytest.raises(ConfigError, match=r"image-00001.f32 is shorter than the 128 rows"):
        len(index)


def test_a_folder_without_an_index_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="medvl index build"):
        Index.open(tmp_path)
    (tmp_path / "cases.sqlite").write_bytes(b"no database, but long enough to look at" * 40)
    with pytest.raises(ConfigError, match="medvl index build"):
        Index.open(tmp_path)


def test_a_stop_between_vectors_and_commit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(tmp_path / "i", 100)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index, "_note", stop)
        with pytest.raises(KeyboardInterrupt):
            index.add(entries(60, 200), vectors(60, seed=5), SPACE)
        index.delete(ids=["P0/kidney_left"])
        with pytest.raises(KeyboardInterrupt):
            index.compact()
    assert (len(index), index.verify()) == (99, [])
    index.add(entries(10, 300), vectors(10, seed=6), SPACE)
    assert (len(index), index.verify()) == (109, [])


def _write(folder: str, go_on: "multiprocessing.synchronize.Event") -> None:
    with Index.open(Path(folder)) as index:
        number = 1000
        while go_on.is_set():
            given = vectors(20, seed=number)
            index.add(entries(20, number), given, SPACE)
            number += 20
            if number % 100 == 0:
                index.delete(ids=[case.id for case in entries(20, number - 20)])
                index.compact()


@pytest.mark.slow
def test_readers_see_whole_batches_beside_a_writer_that_compacts(tmp_path: Path) -> None:
    built(tmp_path / "i", 100).close()
    context = multiprocessing.get_context("spawn")
    go_on = context.Event()
    go_on.set()
    writer = context.Process(target=_write, args=(str(tmp_path / "i"), go_on))
    writer.start()
    given, wrong, seen = vectors(100)["image"], [], set()

    def read(index: Index) -> None:
        until = time.monotonic() + 90
        while time.monotonic() < until and len(seen) < 12 and not wrong:
            found = search(index, given[4], 5000, where="kind=kidney")
            seen.add(found.n_cases)
            if found.n_cases % 20 or found.hits[0].entry.id != "P2/kidney_left" or len(found.hits) != found.n_cases:
                wrong.append(found)

    with Index.open(tmp_path / "i") as shared, Index.open(tmp_path / "i") as own:
        threads = [threading.Thread(target=read, args=(index,)) for index in (shared, shared, own)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        go_on.clear()
        writer.join(60)
        assert writer.exitcode == 0
        assert wrong == []
        assert len(seen) > 3
        assert shared.verify() == []


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from cases import SPACE, entries, vectors
from medvl.retrieval.store import Index
index = Index.open(Path({folder!r}))
number = {start}
while True:
    print("begin", flush=True)
    index.add(entries(50, number), vectors(50, seed=number), SPACE)
    print("done", flush=True)
    if number % 200 == 150:
        print("tidy", flush=True)
        index.delete(ids=[entries(1, number)[0].id])
        index.compact()
        print("tidied", flush=True)
    number += 50
"""


def _killed(folder: Path, start: int, rng: random.Random) -> list[str]:
    """What a writer told before it was killed: somewhere after one of its first steps had begun."""
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), start=start)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told: list[str] = []
    steps, began, longest = rng.randint(2, 7), 0.0, 0.0
    while told.count("begin") + told.count("tidy") < steps:
        told.append(process.stdout.readline().strip())
        now = time.monotonic()
        if told[-1] in ("done", "tidied"):
            longest = max(longest, now - began)
        began = now
    time.sleep(rng.uniform(0, longest))
    process.send_signal(signal.SIGKILL)
    return told + process.communicate()[0].split()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_moment_it_holds_whole_batches(tmp_path: Path) -> None:
    folder, rng, inside = tmp_path / "i", random.Random(0), 0
    built(folder, 100).close()
    start = 1000
    for _ in range(60):
        told = _killed(folder, start, rng)
        inside += told[-1] in ("begin", "tidy")
        with Index.open(folder) as index:
            assert index.verify() == []
            with index.reading() as view:
                numbers, _ = view.columns.text("id")
                assert int((numbers >= 0).sum()) == view.n_rows - len(view.dead)
            done = told.count("done")
            for batch in range(start, start + 50 * done, 50):
                last = entries(50, batch)[49].id
                assert len(search(index, np.ones(SPACE.width), 1, where=f"id={last}").hits) == 1
            started = start + 50 * done
            ids = {case.id for case in entries(50, started)}
            each = [[Condition("id", "=", (i,))] for i in sorted(ids)]  # of what may be missing
            held = sum(bool(search(index, np.ones(SPACE.width), 1, where=only).hits) for only in each)
            assert held in (0, 50)
        start = started + 50
        if inside == 8:
            return
    pytest.fail(f"only {inside} of 60 kills came in the middle of a step")
