"""The store of bundles: what lies in it, what is in use, and that no crash and no neighbour can leave it in between."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from made_bundles import gate, make

from medvl.errors import BundleError, ConfigError
from medvl.models.bundle import Bundle, open_bundle
from medvl.models.store import BundleStore, Entry, default_folder


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "store")


@pytest.fixture
def made(tmp_path: Path) -> list[Bundle]:
    return [make(tmp_path / f"bundle{k}", f"number {k}", name) for k, name in enumerate(("base", "ours", "ours"))]


def gated(store: BundleStore, before: Bundle, after: Bundle) -> Entry:
    return store.add(after.folder, parent=before.folder, gate=gate(before.sha256, after.sha256))


def test_added_bundle_is_a_whole_copy_under_its_hash(store: BundleStore, made: list[Bundle]) -> None:
    entry = store.add(made[0].folder, data_sha256="d1", recipe={"steps": 3}, code_version="medvl 1")
    assert entry.key == f"base-{made[0].sha256[:12]}"
    assert open_bundle(store.folder_of(entry)).sha256 == made[0].sha256
    assert (entry.data_sha256, entry.recipe, entry.code_version, entry.parent) == ("d1", {"steps": 3}, "medvl 1", None)
    assert BundleStore(store.folder).entries() == (entry,)


def test_adding_twice_changes_nothing_but_what_was_not_told(store: BundleStore, made: list[Bundle]) -> None:
    first = store.add(made[0].folder, data_sha256="d1")
    again = store.add(made[0].folder, data_sha256="d2", code_version="v")
    assert (again.data_sha256, again.code_version, again.added) == ("d1", "v", first.added)
    assert len(store.entries()) == 1


def test_a_folder_given_as_parent_comes_along(store: BundleStore, made: list[Bundle]) -> None:
    store.add(made[1].folder, parent=made[0].folder)
    last = store.add(made[2].folder, parent=made[1].sha256)
    assert store.lineage(last) == (made[1].sha256, made[0].sha256)
    assert len(store.entries()) == 3


def test_names(store: BundleStore, made: list[Bundle]) -> None:
    with pytest.raises(BundleError, match="the store is empty"):
        store.find("base")
    entries = [store.add(bundle.folder) for bundle in made]
    assert store.find("base") == store.find(made[0].sha256[:7]) == store.find(entries[0].key) == entries[0]
    with pytest.raises(BundleError, match=f"may be any of .*{entries[1].key}"):
        store.find("ours")
    with pytest.raises(BundleError, match="did you mean base"):
        store.find("bsae")
    with pytest.raises(BundleError, match="no bundle called"):
        store.find(made[0].sha256[:4])


def test_only_what_passed_its_gate_against_the_one_in_use_is_promoted(store: BundleStore, made: list[Bundle]) -> None:
    base, second, third = made
    store.add(second.folder)
    with pytest.raises(BundleError, match="never gated"):
        store.promote(second.sha256)
    store.add_gate(second.sha256, gate(base.sha256, second.sha256, passed=False))
    with pytest.raises(BundleError, match="its gate failed"):
        store.promote(second.sha256)
    assert store.current() is None
    store.add_gate(second.sha256, gate(base.sha256, second.sha256, draws=1000))
    assert store.promote(second.sha256).forced is False
    store.add(third.folder, gate=gate(base.sha256, third.sha256))
    with pytest.raises(BundleError, match="is in use, and its gate compared it with another bundle"):
        store.promote(third.sha256)
    store.add_gate(third.sha256, gate(second.sha256, third.sha256))
    told = store.promote(third.sha256)
    assert (told.was, told.now, told.n) == (second.sha256, third.sha256, 2)
    assert store.current() == store.folder_of(store.find(third.sha256))


def test_the_latest_gate_counts(store: BundleStore, made: list[Bundle]) -> None:
    gated(store, made[0], made[1])
    store.add_gate(made[1].sha256, gate(made[0].sha256, made[1].sha256, passed=False))
    with pytest.raises(BundleError, match="its gate failed"):
        store.promote(made[1].sha256)


def test_force_wants_a_reason_and_keeps_it(store: BundleStore, made: list[Bundle]) -> None:
    store.add(made[0].folder)
    with pytest.raises(ConfigError, match="written reason"):
        store.promote("base", force=True, reason="  ")
    told = store.promote("base", force=True, reason="first bundle of this site")
    assert told.forced
    assert told.gate is None
    assert store.history()[0].reason == "first bundle of this site"


def test_gate_of_another_bundle_is_refused(store: BundleStore, made: list[Bundle]) -> None:
    with pytest.raises(ConfigError, match="judged bundle"):
        store.add(made[1].folder, gate=gate(made[0].sha256, made[2].sha256))
    with pytest.raises(ConfigError, match="no record of a gate"):
        store.add(made[1].folder, gate={"passed": True})


def test_rollback_goes_back_one_promotion_at_a_time(store: BundleStore, made: list[Bundle]) -> None:
    base, second, third = made
    with pytest.raises(BundleError, match="nothing to go back to"):
        store.rollback()
    gated(store, base, second)
    gated(store, second, third)
    store.promote(second.sha256)
    store.promote(third.sha256)
    assert store.rollback(reason="odd answers").now == second.sha256
    assert store.rollback().now == base.sha256  # what the first gate compared with
    with pytest.raises(BundleError, match="nothing to go back to"):
        store.rollback()
    store.promote(second.sha256)
    assert store.rollback().now == base.sha256
    assert [line.action for line in store.history()] == ["promote"] * 2 + ["rollback"] * 2 + ["promote", "rollback"]


def test_promoting_what_is_in_use_adds_no_line(store: BundleStore, made: list[Bundle]) -> None:
    gated(store, made[0], made[1])
    assert store.promote(made[1].sha256) == store.promote(made[1].sha256)
    assert len(store.history()) == 1


def test_altered_bundle_is_not_promoted_and_heals_when_added_again(store: BundleStore, made: list[Bundle]) -> None:
    entry = gated(store, made[0], made[1])
    (store.folder_of(entry) / "weights.safetensors").write_text("other")
    with pytest.raises(BundleError, match="was altered"):
        store.verify(entry)
    with pytest.raises(BundleError, match="was altered"):
        store.promote(entry.key)
    assert store.history() == ()
    assert store.add(made[1].folder) == entry
    store.promote(entry.key)
    assert store.verify(entry).sha256 == made[1].sha256


def test_resealed_bundle_in_use_is_refused(store: BundleStore, made: list[Bundle]) -> None:
    entry = gated(store, made[0], made[1])
    store.promote(entry.key)
    path = store.folder_of(entry) / "bundle.json"
    values = json.loads(path.read_text())
    values["files"]["README.md"] = hashlib.sha256(b"new").hexdigest()
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match="was altered"):
        store.current()
    assert store.rollback().now == made[0].sha256


def test_torn_line_never_counts_and_is_cut_off(store: BundleStore, made: list[Bundle]) -> None:
    for before, after in ((made[0], made[1]), (made[1], made[2])):
        gated(store, before, after)
    store.promote(made[1].sha256)
    path = store.folder / "promotions.jsonl"
    one = path.read_bytes()
    store.promote(made[2].sha256)
    both = path.read_bytes()
    for end in range(len(one), len(both)):
        path.write_bytes(both[:end])
        assert store.promoted() == store.find(made[1].sha256)
    assert store.rollback().now == made[0].sha256
    assert [line.n for line in store.history()] == [1, 2]


def test_altered_history_is_found(store: BundleStore, made: list[Bundle]) -> None:
    gated(store, made[0], made[1])
    store.promote(made[1].sha256, reason="careful")
    store.rollback()
    path = store.folder / "promotions.jsonl"
    path.write_text(path.read_text().replace("careful", "careless"))
    with pytest.raises(BundleError, match=r"line 2 of promotions\.jsonl does not follow"):
        store.history()


def test_journal_names_nobody(store: BundleStore, made: list[Bundle]) -> None:
    gated(store, made[0], made[1])
    store.promote(made[1].sha256)
    line = json.loads((store.folder / "promotions.jsonl").read_text())
    assert set(line) == {"n", "at", "action", "was", "now", "name", "gate", "forced", "reason", "previous"}


PROMOTE = "import sys; from pathlib import Path; from medvl.models.store import BundleStore; s = BundleStore(Path(sys.argv[1]))\n"


def test_many_processes_promote_at_once(store: BundleStore, made: list[Bundle]) -> None:
    for bundle in made:
        store.add(bundle.folder)
    code = PROMOTE + "for sha in sys.argv[2:] * 10: s.promote(sha, force=True, reason='race')"
    shas = [bundle.sha256 for bundle in made]
    turns = [shas, shas[::-1], [shas[1], shas[0], shas[2]]]
    running = [subprocess.Popen([sys.executable, "-c", code, str(store.folder), *turn]) for turn in turns]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    lines = store.history()
    assert all(before.now == after.was for before, after in itertools.pairwise(lines))
    assert store.current() == store.folder_of(store.find(lines[-1].now))


def test_killed_adding_leaves_no_half_bundle(store: BundleStore, made: list[Bundle]) -> None:
    code = PROMOTE + (
        "import os, signal, medvl.models.store_shelf as shelf\n"
        "shelf.settle = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "s.add(Path(sys.argv[2]))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(store.folder), str(made[0].folder)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((store.folder / "bundles").iterdir())) == 1  # a hidden part, which is no entry
    assert store.entries() == ()
    entry = store.add(made[0].folder)
    assert [p.name for p in (store.folder / "bundles").iterdir()] == [entry.key]


def test_killed_promoting_keeps_what_was_in_use(store: BundleStore, made: list[Bundle]) -> None:
    gated(store, made[0], made[1])
    gated(store, made[1], made[2])
    store.promote(made[1].sha256)
    code = PROMOTE + (
        "import os, signal\n"
        "write = os.pwrite\n"
        "os.pwrite = lambda d, text, at: (write(d, text[:-1], at), os.kill(os.getpid(), signal.SIGKILL))\n"
        "s.promote(sys.argv[2])"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(store.folder), made[2].sha256], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert store.promoted() == store.find(made[1].sha256)
    assert store.promote(made[2].sha256).was == made[1].sha256


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDVL_STORE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("MEDVL_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_folder() == tmp_path / "data" / "medvl" / "store"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_reading_needs_no_right_to_write(store: BundleStore, made: list[Bundle]) -> None:
    gated(store, made[0], made[1])
    store.promote(made[1].sha256)
    store.folder.chmod(0o500)
    try:
        assert store.current() is not None
    finally:
        store.folder.chmod(0o700)
