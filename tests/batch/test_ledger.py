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

from medvl.batch.dues import Due, Dues, Unmade
from medvl.batch.ledger import Case, Ended, Ledger
from medvl.batch.marks import By
from medvl.batch.owner import lives, machine, me
from medvl.batch.tables import Sending, State, about
from medvl.errors import ConfigError
from medvl.store import open_engine

BY = By("b" * 64, "c" * 64, "b")
SR, PAGE = ({"path": f"{name}.dcm", "sha256": name * 8} for name in ("sr", "page"))


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
        assert ledger.add(cases(2), BY) == []
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
        ledger.add(cases(1), BY)
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
        ledger.add(cases(3), BY)
        for how in (State.done, State.skipped, State.quarantined):
            taken = ledger.claim(attempts=1)
            assert taken is not None
            ledger.end(taken.case_id, Ended(how, "" if how == State.done else "why"))
        assert ledger.add(cases(3), BY) == ["c000"]
        assert states(ledger) == {"c000": "done", "c001": "queued", "c002": "quarantined"}
        ledger.add(cases(3), BY, again=(State.quarantined,))
        assert states(ledger)["c002"] == "queued"
        grown = [Case("c000", {"path": "/x/0"}, None, "another print")]
        assert ledger.add(grown, BY) == [] and states(ledger)["c000"] == "queued"
        ledger.add(cases(1), BY)
        assert ledger.claim(attempts=1) is not None and ledger.end("c000", Ended(State.done))
        assert ledger.add(cases(1), By("another", "c", "another")) == [] and states(ledger)["c000"] == "queued"


def test_a_study_that_takes_its_holder_down_is_set_aside(place: Path | str) -> None:
    with Ledger(place) as ledger:
        ledger.add(cases(1), BY)
        assert ledger.claim(attempts=2) is not None
        assert ledger.back("c000", 2, "timeout", "too long") == State.queued
        again = ledger.claim(attempts=2)
        assert again is not None and again.attempts == 2
        assert ledger.back("c000", 2, "timeout", "too long") == State.quarantined
        assert ledger.claim(attempts=2) is None


def test_a_study_waits_before_its_next_try(place: Path | str) -> None:
    with Ledger(place) as ledger:
        ledger.add(cases(1), BY)
        ledger.claim(attempts=1)
        ledger.later("c000", "pacs_unreachable", "no answer", wait_s=0.3)
        assert ledger.claim(attempts=1) is None
        time.sleep(0.4)
        again = ledger.claim(attempts=1)
        assert again is not None and again.attempts == 1, "a PACS that is down is no fault of the study"


def test_what_a_run_had_in_hand_when_it_stopped_counts_as_not_begun(place: Path | str) -> None:
    with Ledger(place) as ledger:
        ledger.add(cases(1), BY)
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
        ledger.add(cases(1), BY)
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
        far.add(cases(1), BY)
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
        ledger.add(cases(60), BY)
    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(_take_all, [str(place)] * 4, range(4)))
    assert sorted(case_id for share in shares for case_id in share) == [f"c{i:03}" for i in range(60)]


def test_processes_that_open_a_new_ledger_at_once_all_can(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        assert pool.starmap(_take_all, [(str(tmp_path / "ledger.sqlite"), k) for k in range(3)]) == [[], [], []]


def test_deliveries_are_owed_once_and_sent_once(place: Path | str) -> None:
    with Ledger(place) as ledger:
        dues = Dues(ledger, "sr")
        ledger.add(cases(2), BY)
        for _ in range(2):
            taken = ledger.claim(attempts=1)
            assert taken is not None
            ledger.end(taken.case_id, Ended(State.done), ["one", "two"], "sr")
        assert dues.to_send() is None, "nothing is made yet"
        assert dues.unmade(5) == ["c000", "c001"]
        assert not dues.made("c000", [SR]), "it was not taken"
        assert dues.take() == Unmade("c000", {"path": "/x/0"}, {"key": "s"})
        assert dues.made("c000", [SR])
        assert dues.unmade(5) == ["c001"]
        first, second = dues.to_send(), dues.to_send()
        assert first is not None and second is not None
        dues.sent(first, Sending.waiting, "pacs_unreachable", "no answer", 0.3)
        dues.sent(second, Sending.sent)
        assert dues.to_send() is None
        time.sleep(0.4)
        assert dues.to_send() == Due("c000", "one", [SR], [SR])
        dues.sent(first, Sending.refused, "pacs_refused", "403")
        dues.owe(["c000"], ["one", "two", "three"])
        rows = {(r["case_id"], r["target"]): (r["state"], r["attempts"]) for r in dues.rows() if r["case_id"] == "c000"}
        assert rows == {("c000", "one"): ("refused", 2), ("c000", "two"): ("sent", 1), ("c000", "three"): ("waiting", 0)}
        dues.owe(["c000"], ["one", "two"], refused=True)
        assert dues.to_send() == Due("c000", "one", [SR], [SR])
        assert dues.to_send() == Due("c000", "three", [SR], [SR])
        assert dues.to_send() is None


def done_in(ledger: Ledger, way: str, *targets: str) -> Dues:
    """The dues of a ledger with one study, done and its report made in a way."""
    ledger.add(cases(1), BY)
    assert ledger.claim(attempts=1) is not None
    ledger.end("c000", Ended(State.done), targets, way)
    dues = Dues(ledger, way)
    assert dues.take() is not None and dues.made("c000", [SR])
    return dues


def test_what_is_made_in_another_way_is_neither_kept_nor_sent(place: Path | str) -> None:
    with Ledger(place) as ledger:
        named, hidden = done_in(ledger, "named", "pacs"), Dues(ledger, "hidden")
        assert (hidden.to_send(), hidden.unmade(), hidden.waiting()) == (None, [], False)
        hidden.owe(["c000"], ["research"])
        assert (named.to_send(), hidden.to_send(), named.unmade(), hidden.unmade()) == (None, None, [], ["c000"])
        assert [(r["target"], r["reason"]) for r in hidden.rows()] == [("pacs", "made_otherwise"), ("research", "")]
        assert ledger.open_ones(["c000"], "named") and ledger.open_ones(["c000"], "hidden")
        assert hidden.take() is not None and hidden.made("c000", [PAGE])
        due = hidden.to_send()
        assert (due, named.to_send(), hidden.to_send()) == (Due("c000", "research", [PAGE], [PAGE]), None, None)
        assert due is not None and hidden.waiting()
        hidden.sent(due, Sending.sent)
        assert not hidden.waiting() and not ledger.open_ones(["c000"], "hidden")
        named.owe(["c000"], [])
        assert named.take() is not None and named.made("c000", [SR])
        assert named.to_send() == Due("c000", "pacs", [SR], [SR]), "as the command that asked for it wants it"


def test_a_target_gets_only_what_it_has_not_got(place: Path | str) -> None:
    with Ledger(place) as ledger:
        first, more = done_in(ledger, "sr", "pacs"), Dues(ledger, "sr page")
        due = first.to_send()
        assert due is not None
        first.sent(due, Sending.sent)
        more.owe(["c000"], ["pacs"])
        assert more.take() is not None and more.made("c000", [SR, PAGE])
        due = more.to_send()
        assert due == Due("c000", "pacs", [SR, PAGE], [PAGE])
        more.sent(due, Sending.sent)
        first.owe(["c000"], ["pacs"])
        assert first.take() is not None and first.made("c000", [SR])
        assert first.to_send() is None
        assert [(r["state"], r["attempts"]) for r in first.rows()] == [("sent", 0)], "it has the report from before"


def test_nobody_makes_what_another_makes_or_sends(tmp_path: Path) -> None:
    place = tmp_path / "ledger.sqlite"
    with Ledger(place) as one, Ledger(place) as two:
        named, hidden = done_in(one, "named", "pacs"), Dues(two, "hidden")
        due = named.to_send()
        assert due is not None
        hidden.owe(["c000"], ["pacs"])
        assert hidden.take() is None, "its files are on their way"
        named.sent(due, Sending.sent)
        assert [(r["way"], r["state"], r["owner"]) for r in hidden.rows()] == [("hidden", "waiting", None)]
        assert hidden.take() is not None and Dues(one, "hidden").take() is None
        named.owe(["c000"], ["pacs"])
        assert named.take() is None and not hidden.made("c000", [PAGE]), "wanted in another way by now"
        assert (named.to_send(), hidden.to_send()) == (None, None)
        hidden.put_back("c000")
        assert named.take() is not None and named.made("c000", [SR])
        assert (named.to_send(), [r["state"] for r in named.rows()]) == (None, ["sent"])


def test_a_maker_that_died_is_followed_by_another_and_one_elsewhere_is_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "ledger.sqlite"
    with Ledger(place) as near, Ledger(place, lease_s=0.5) as far:
        done_in(near, "sr")
        near.anew(["c000"])
        assert near.claim(attempts=1) is not None and near.end("c000", Ended(State.done), (), "sr")
        far.owner = f"another-machine/{os.getpid()}/1/x"
        assert Dues(far, "sr").take() is not None
        time.sleep(0.3)
        far.beat()
        time.sleep(0.3)
        assert Dues(near, "sr").take() is None
        time.sleep(0.4)
        near.owner = f"{machine()}/999999999/1/x"
        assert Dues(near, "sr").take() is not None and not Dues(far, "sr").made("c000", [SR])
        near.owner = me()
        assert Dues(near, "sr").take() is not None


def test_the_record_tells_who_answered(place: Path | str) -> None:
    with Ledger(place) as ledger:
        ledger.add(cases(1), BY)
        other = By("d" * 64, "e" * 64, "f")
        assert ledger.claim(attempts=1, by=other) is not None and ledger.end("c000", Ended(State.done))
        row = ledger.studies()[0]
        assert (row["bundle"], row["contract"], row["answers"]) == ("d" * 64, "e" * 64, "f")
        assert ledger.add(cases(1), other) == ["c000"] and ledger.add(cases(1), BY) == []


def test_a_delivery_of_a_dead_holder_is_taken_over(tmp_path: Path) -> None:
    place = tmp_path / "ledger.sqlite"
    with Ledger(place) as dead, Ledger(place) as ledger:
        ledger.add(cases(1), BY)
        ledger.claim(attempts=1)
        ledger.end("c000", Ended(State.done), ["one"], "sr")
        dues = Dues(ledger, "sr")
        assert dues.take() is not None and dues.made("c000", [])
        dead.owner = f"{machine()}/999999999/1/x"
        assert Dues(dead, "sr").to_send() is not None
        assert dues.to_send() is not None


FORMER = """
CREATE TABLE about (name VARCHAR(40) PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE studies (case_id VARCHAR(32) PRIMARY KEY, position INTEGER NOT NULL, state VARCHAR(16) NOT NULL,
 attempts INTEGER NOT NULL, source JSON NOT NULL, series JSON, fingerprint VARCHAR(64), answers VARCHAR(64) NOT NULL,
 reason VARCHAR(64) NOT NULL, message TEXT NOT NULL, pixels VARCHAR(64), objects JSON, owner VARCHAR(200),
 lease_until FLOAT NOT NULL, not_before FLOAT NOT NULL, queued_at FLOAT NOT NULL, started_at FLOAT, ended_at FLOAT, timings JSON);
CREATE TABLE deliveries (case_id VARCHAR(32), target VARCHAR(300), state VARCHAR(16) NOT NULL, attempts INTEGER NOT NULL,
 reason VARCHAR(64) NOT NULL, message TEXT NOT NULL, owner VARCHAR(200), lease_until FLOAT NOT NULL, not_before FLOAT NOT NULL,
 sent_at FLOAT, PRIMARY KEY (case_id, target));
INSERT INTO about VALUES ('schema', '1');
INSERT INTO studies VALUES ('c000', 1, 'done', 1, '{"path": "/x/0"}', '{"key": "s"}', 'print 0', 'b', '', '', 'ab',
 '[{"path": "sr.dcm", "sha256": "srsrsrsrsrsrsrsr"}]', NULL, 0, 0, 1, 1, 2, '{}');
INSERT INTO deliveries VALUES ('c000', 'has', 'sent', 1, '', '', NULL, 0, 0, 3);
INSERT INTO deliveries VALUES ('c000', 'lacks', 'waiting', 1, 'pacs_unreachable', 'no answer', NULL, 0, 0, NULL)
"""


def test_a_ledger_of_the_former_version_is_taken_over(place: Path | str) -> None:
    engine = open_engine(place)
    with engine.execution_options(writes=True).begin() as db:
        for statement in FORMER.split(";"):
            db.exec_driver_sql(statement)
    engine.dispose()
    for _ in range(2):
        with Ledger(place) as ledger:
            dues = Dues(ledger, "sr")
            assert (dues.to_send(), dues.unmade()) == (None, []), "nobody knows how its objects were made"
    with Ledger(place) as ledger:
        dues = Dues(ledger, "sr")
        assert ledger.studies()[0]["bundle"] is None
        assert ledger.add(cases(1), BY) == ["c000"], "its answers stay"
        assert (ledger.studies()[0]["bundle"], ledger.studies()[0]["contract"]) == (BY.bundle, BY.contract)
        dues.owe(["c000"], ["has", "lacks"])
        assert dues.to_send() is None and dues.unmade() == ["c000"]
        assert dues.take() is not None and dues.made("c000", [SR])
        assert dues.to_send() == Due("c000", "lacks", [SR], [SR])
        assert dues.to_send() is None
        assert {r["target"]: r["state"] for r in dues.rows()} == {"has": "sent", "lacks": "waiting"}


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, ledger.writing() as db:
        db.execute(about.update().values(value="99"))
    with pytest.raises(ConfigError, match="schema 99"):
        Ledger(tmp_path / "ledger.sqlite")


def test_owners() -> None:
    assert lives(me()) is True
    assert lives(f"{machine()}/{os.getpid()}/1/x") is False, "another process had this number before"
    assert lives("elsewhere/1/1/x") is None
