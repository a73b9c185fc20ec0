"""The ledger: who owns what, what a death leaves behind, and that two never get the same study."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgres import postgres

from medvl.batch.dues import Dues
from medvl.batch.ledger import Case, Ended, Ledger
from medvl.batch.owner import lives, machine, me
from medvl.batch.tables import Sending, State, about
from medvl.errors import ConfigError


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a PostgreSQL server of this test's own."""
    with postgres() as address:
        yield address


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a ledger lies: both kinds must behave alike."""
    if request.param == "file":
        return tmp_path / "ledger.sqlite"
    address: str = request.getfixturevalue("server")
    engine = sa.create_engine(address.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as db:
        db.execute(sa.text("DROP SCHEMA public CASCADE"))
        db.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return address


def cases(n: int, start: int = 0) -> list[Case]:
    return [Case(f"c{i:03}", {"path": f"/x/{i}"}, {"key": "s"}, f"print {i}") for i in range(start, start + n)]


def states(ledger: Ledger) -> dict[str, str]:
    return {row["case_id"]: row["state"] for row in ledger.studies()}


def test_a_study_goes_from_queue_to_its_end(place: Path | str) -> None:
    with Ledger(place) as ledger:
        assert ledger.add(cases(2), "b") == []
        first = ledger.claim(attempts=2)
        assert first is not None and (first.case_id, first.source, first.attempts) == ("c000", {"path": "/x/0"}, 1)
        assert ledger.mine() == ["c000"]
        assert ledger.end("c000", Ended(State.done, pixels="ab", timings={"read": 1.5}))
        assert not ledger.end("c000", Ended(State.failed))
        second = ledger.claim(attempts=2)
        assert second is not None and ledger.end(second.case_id, Ended(State.skipped, "not_ct", "MR"))
        assert ledger.claim(attempts=2) is None
        row = ledger.studies()[0]
        assert (row["pixels"], row["timings"], row["owner"]) == ("ab", {"read": 1.5}, None)
        assert ledger.counts() == {**dict.fromkeys(map(str, State), 0), "done": 1, "skipped": 1}
        assert [(e["case_id"], e["what"], e["reason"]) for e in ledger.events()] == [
            ("c000", "done", ""),
            ("c001", "skipped", "not_ct"),
        ]


def test_a_study_that_goes_back_and_forth_is_to_do_all_the_while(place: Path | str) -> None:
    with Ledger(place) as ledger:
        assert not ledger.to_do()
        ledger.add(cases(1), "b")
        over = threading.Event()

        def hither_and_thither() -> None:
            for _ in range(100):
                assert ledger.claim(attempts=1000) is not None
                ledger.later("c000", "pacs_unreachable", "no answer", wait_s=0)
            over.set()

        with ThreadPoolExecutor(1) as pool:
            moved = pool.submit(hither_and_thither)
            while not over.is_set() and not moved.done():
                assert ledger.to_do()
            moved.result()
        assert ledger.claim(attempts=1000) is not None and ledger.to_do()
        ledger.end("c000", Ended(State.done))
        assert not ledger.to_do()


def test_what_is_found_again_stays_or_starts_anew(place: Path | str) -> None:
    with Ledger(place) as ledger:
        ledger.add(cases(3), "b")
        for how in (State.done, State.skipped, State.quarantined):
            taken = ledger.claim(attempts=1)
            assert taken is not None
            ledger.end(taken.case_id, Ended(how, "" if how == State.done else "why"))
        assert ledger.add(cases(3), "b") == ["c000"]
        assert states(ledger) == {"c000": "done", "c001": "queued", "c002": "quarantined"}
        ledger.add(cases(3), "b", again=(State.quarantined,))
        assert states(ledger)["c002"] == "queued"
        grown = [Case("c000", {"path": "/x/0"}, None, "another print")]
        assert ledger.add(grown, "b") == [] and states(ledger)["c000"] == "queued"
        ledger.add(cases(1), "b")
        assert ledger.claim(attempts=1) is not None and ledger.end("c000", Ended(State.done))
        assert ledger.add(cases(1), "another bundle") == [] and states(ledger)["c000"] == "queued"


def test_a_study_that_takes_its_holder_down_is_set_aside(place: Path | str) -> None:
    with Ledger(place) as ledger:
        ledger.add(cases(1), "b")
        assert ledger.claim(attempts=2) is not None
        assert ledger.back("c000", 2, "timeout", "too long") == State.queued
        again = ledger.claim(attempts=2)
        assert again is not None and again.attempts == 2
        assert ledger.back("c000", 2, "timeout", "too long") == State.quarantined
        assert ledger.claim(attempts=2) is None


def test_a_study_waits_before_its_next_try(place: Path | str) -> None:
    with Ledger(place) as ledger:
        ledger.add(cases(1), "b")
        ledger.claim(attempts=1)
        ledger.later("c000", "pacs_unreachable", "no answer", wait_s=0.3)
        assert ledger.claim(attempts=1) is None
        time.sleep(0.4)
        again = ledger.claim(attempts=1)
        assert again is not None and again.attempts == 1, "a PACS that is down is no fault of the study"


def test_what_a_run_had_in_hand_when_it_stopped_counts_as_not_begun(place: Path | str) -> None:
    with Ledger(place) as ledger:
        ledger.add(cases(1), "b")
        ledger.claim(attempts=1)
        ledger.untouched(["c000"])
        taken = ledger.claim(attempts=1)
        assert taken is not None and taken.attempts == 1


HOLDER = """
import sys, time
from medvl.batch.ledger import Ledger
place = sys.argv[1]
from pathlib import Path
ledger = Ledger(place if "://" in place else Path(place))
print(ledger.claim(attempts=9).case_id, flush=True)
time.sleep(60)
"""


def test_a_killed_holder_is_noticed_at_once_and_a_living_one_is_left_alone(place: Path | str) -> None:
    with Ledger(place, lease_s=3600) as ledger:
        ledger.add(cases(1), "b")
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(place)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline().strip() == "c000"
        assert ledger.claim(attempts=9) is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        taken = ledger.claim(attempts=9)
        assert taken is not None and (taken.case_id, taken.attempts) == ("c000", 1)
        assert [e["reason"] for e in ledger.events()] == ["worker_died"]


def test_a_holder_elsewhere_is_waited_for_until_its_lease_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "ledger.sqlite"
    with Ledger(place, lease_s=0.5) as far, Ledger(place) as near:
        far.owner = f"another-machine/{os.getpid()}/1/x"
        far.add(cases(1), "b")
        assert far.claim(attempts=9) is not None
        assert near.claim(attempts=9) is None
        far.beat()
        time.sleep(0.7)
        assert near.claim(attempts=9) is not None
        assert not far.end("c000", Ended(State.done)), "the study belongs to another by now"


def _take_all(place: str, n: int) -> list[str]:
    taken: list[str] = []
    with Ledger(place if "://" in place else Path(place)) as ledger:
        while (found := ledger.claim(attempts=1)) is not None:
            taken.append(found.case_id)
            ledger.end(found.case_id, Ended(State.done), ["t"])
    return taken


def test_many_takers_share_the_queue_without_overlap(place: Path | str) -> None:
    with Ledger(place) as ledger:
        ledger.add(cases(60), "b")
    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(_take_all, [str(place)] * 4, range(4)))
    assert sorted(case_id for share in shares for case_id in share) == [f"c{i:03}" for i in range(60)]


def test_processes_that_open_a_new_ledger_at_once_all_can(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        assert pool.starmap(_take_all, [(str(tmp_path / "ledger.sqlite"), k) for k in range(3)]) == [[], [], []]


def test_deliveries_are_owed_once_and_sent_once(place: Path | str) -> None:
    with Ledger(place) as ledger:
        dues = Dues(ledger)
        ledger.add(cases(2), "b")
        for _ in range(2):
            taken = ledger.claim(attempts=1)
            assert taken is not None
            ledger.end(taken.case_id, Ended(State.done), ["one", "two"])
        assert dues.to_send() is None, "nothing is made yet"
        assert [row[0] for row in dues.unmade(5)] == ["c000", "c001"]
        dues.made("c000", [{"path": "sr.dcm"}])
        assert [row[0] for row in dues.unmade(5)] == ["c001"]
        first, second = dues.to_send(), dues.to_send()
        assert first is not None and second is not None
        dues.sent("c000", "one", Sending.waiting, "pacs_unreachable", "no answer", 0.3)
        dues.sent("c000", "two", Sending.sent)
        assert dues.to_send() is None
        time.sleep(0.4)
        assert dues.to_send() == ("c000", "one", [{"path": "sr.dcm"}])
        dues.sent("c000", "one", Sending.refused, "pacs_refused", "403")
        dues.owe(["c000"], ["one", "two", "three"])
        rows = {(r["case_id"], r["target"]): (r["state"], r["attempts"]) for r in dues.rows() if r["case_id"] == "c000"}
        assert rows == {("c000", "one"): ("refused", 2), ("c000", "two"): ("sent", 1), ("c000", "three"): ("waiting", 0)}
        dues.owe(["c000"], ["one", "two"], refused=True)
        assert dues.to_send() == ("c000", "one", [{"path": "sr.dcm"}])
        assert dues.to_send() == ("c000", "three", [{"path": "sr.dcm"}])
        assert dues.to_send() is None


def test_a_delivery_of_a_dead_holder_is_taken_over(tmp_path: Path) -> None:
    place = tmp_path / "ledger.sqlite"
    with Ledger(place) as dead, Ledger(place) as ledger:
        ledger.add(cases(1), "b")
        ledger.claim(attempts=1)
        ledger.end("c000", Ended(State.done), ["one"])
        Dues(ledger).made("c000", [])
        dead.owner = f"{machine()}/999999999/1/x"
        assert Dues(dead).to_send() is not None
        assert Dues(ledger).to_send() is not None


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, ledger.writing() as db:
        db.execute(about.update().values(value="99"))
    with pytest.raises(ConfigError, match="schema 99"):
        Ledger(tmp_path / "ledger.sqlite")


def test_owners() -> None:
    assert lives(me()) is True
    assert lives(f"{machine()}/{os.getpid()}/1/x") is False, "another process had this number before"
    assert lives("elsewhere/1/1/x") is None
