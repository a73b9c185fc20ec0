"""The worklist: order, search, filters, paging, table, and that thousands of studies stay quick."""

import json
import sqlite3
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from results_folder import DONE, finding, study_json, write_study
from streamlit.testing.v1 import AppTest

from medvl.batch.ledger import Case, Ledger
from medvl.batch.marks import By
from medvl.batch.tables import State
from medvl.review.desk import Reviews
from medvl.review.record import Choice, Decision, Person
from medvl_ui import index as index_module
from medvl_ui.index import Index, Row, ledger_rows
from medvl_ui.station import open_station

PAGE = Path(__file__).with_name("worklist_page.py")
NOW = 1_800_000_000.0
HOUR = 3600.0


def page(root: Path) -> AppTest:
    open_station(root)
    return AppTest.from_file(str(PAGE), default_timeout=60).run()


def cases(at: AppTest) -> list[str]:
    return [button.key.removeprefix("case_") for button in at.button if (button.key or "").startswith("case_")]


def shown(at: AppTest) -> str:
    return at.text[0].value


def texts(at: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (at.caption, at.markdown, at.subheader) for e in kind).replace("\\", "")


def many(root: Path, n: int) -> None:
    for k in range(n):
        write_study(root, study_json(f"case{k:03d}", findings=[finding("cyst", "kidney_left", 0.99 - k / 1000, "present")]))


def row(**more) -> Row:
    return Row(**({"case_id": "a", "status": "done", "line": "", "since": NOW} | more))


def test_priority_is_score_abstentions_and_age() -> None:
    assert row().priority(NOW) == 0
    assert row(urgency=0.9).priority(NOW) == 54
    assert row(urgency=0.9, undecided=2).priority(NOW) == 64
    assert row(undecided=9).priority(NOW) == 25
    assert row(since=NOW - 36 * HOUR).priority(NOW) == 7.5
    assert row(urgency=1.0, undecided=5, since=NOW - 999 * HOUR).priority(NOW) == 100
    assert row(status="failed").priority(NOW) == row(status="quarantined").priority(NOW) == 25
    assert row(status="waiting", since=NOW - 99 * HOUR).priority(NOW) == 0


def test_an_uncalibrated_score_counts_half_and_absent_ones_not(tmp_path: Path) -> None:
    made = {"made_at": "2026-11-22T10:00:00+00:00"}
    write_study(tmp_path, study_json("a", findings=[finding("cyst", "kidney_left", 0.8, "present", calibrated=False)], **made))
    write_study(tmp_path, study_json("b", findings=[finding("cyst", "kidney_left", 0.9, "absent")], **made))
    first, second = Index(tmp_path).rows()
    assert (first.urgency, second.urgency) == (0.4, 0.0)
    assert first.since == 1795341600.0  # 2026-11-22 10:00 UTC, from date(1)


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many(tmp_path, 3)
    now = [0.0]
    index = Index(tmp_path, clock=lambda: now[0])
    before = index.rows()
    import medvl_ui.index as module

    read = []
    whole = module.parse_study
    monkeypatch.setattr(module, "parse_study", lambda folder: read.append(folder.name) or whole(folder))
    now[0] = 100.0
    assert index.rows() is before
    (tmp_path / "studies" / "case001" / "findings.json").write_text(json.dumps(study_json("case001")))
    assert index.rows() is before  # looked at a moment ago
    now[0] = 200.0
    assert index.rows()[1].line == "no findings"
    assert read == ["case001"]


def test_waiting_and_quarantined_studies_come_from_the_ledger(tmp_path: Path) -> None:
    many(tmp_path, 1)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add([Case("case000", {}), Case("queued1", {})], By("a", "b", "c"))
        aside = Case("aside1", {}, state=State.quarantined, reason="too_slow", message="It took more than 600 seconds.")
        ledger.add([aside], By("a", "b", "c"))
        found = {row.case_id: row for row in Index(tmp_path).rows()}
        assert found["case000"].status == "done"  # its answers can be read while they are made anew
        assert (found["queued1"].status, found["queued1"].line) == ("waiting", "waits for inference")
        assert (found["aside1"].status, found["aside1"].line) == ("quarantined", "It took more than 600 seconds.")
        at = page(tmp_path)
    assert cases(at) == ["aside1", "case000", "queued1"] or cases(at) == ["case000", "aside1", "queued1"]
    at.button(key="case_queued1").click().run()
    assert shown(at) == "queued1 waiting"


def test_a_ledger_that_is_none_leaves_the_studies(tmp_path: Path) -> None:
    many(tmp_path, 1)
    (tmp_path / "ledger.sqlite").write_text("this is not a database, whatever its name says")
    assert [row.case_id for row in Index(tmp_path).rows()] == ["case000"]
    sqlite3.connect(tmp_path / "other.sqlite").close()
    assert ledger_rows(tmp_path / "none.sqlite") == {}


def test_search_and_filters_shorten_the_list(results: Path) -> None:
    at = page(results)
    at.text_input(key="search").set_value("STONE left").run()
    assert cases(at) == [DONE]
    at.text_input(key="search").set_value("stone chest").run()
    assert "No study fits" in texts(at)
    at.text_input(key="search").set_value("").run()
    at.selectbox(key="filter").set_value("Skipped, failed or unreadable").run()
    assert cases(at) == ["b0skipped", "b1failed", "d0corrupt"]
    assert not at.exception


def test_signed_studies_come_last_and_can_be_hidden(results: Path) -> None:
    with Reviews(results) as kept:
        read = kept.review(DONE).answers
        kept.save(
            DONE, Decision("stone@kidney_left", Choice.accept), Person("Ada", "reviewer"), expected_version=0, results=read.sha256
        )
        answers = kept.review("c0hostile")
        kept.reject(
            "c0hostile",
            Person("Ada", "reviewer"),
            "wrong series",
            expected_version=answers.version,
            results=answers.answers.sha256,
        )
    at = page(results)
    assert cases(at)[0] == DONE
    assert cases(at)[-1] == "c0hostile"
    at.selectbox(key="review_filter").set_value("Not signed").run()
    assert "c0hostile" not in cases(at)
    at.selectbox(key="review_filter").set_value("In review").run()
    assert cases(at) == [DONE]


def test_next_and_previous_follow_the_list_across_its_pages(tmp_path: Path) -> None:
    many(tmp_path, 45)
    at = page(tmp_path)
    assert cases(at) == [f"case{k:03d}" for k in range(20)]
    assert at.button(key="previous").disabled
    at.button(key="page_on").click().run()
    assert cases(at)[0] == "case020"
    assert shown(at) == "case000 done"  # turning the page opens nothing
    assert "21 to 40 of 45" in texts(at)
    at.button(key="next").click().run()
    assert shown(at) == "case001 done"
    assert cases(at)[0] == "case000"  # the list shows the open study
    at.button(key="page_on").click().run()
    at.button(key="page_on").click().run()
    at.button(key="case_case044").click().run()
    assert at.button(key="next").disabled
    at.button(key="previous").click().run()
    assert shown(at) == "case043 done"


def test_the_table_holds_every_study_in_the_order_asked_for(tmp_path: Path) -> None:
    many(tmp_path, 45)
    at = page(tmp_path)
    at.button(key="table").click().run()
    table = at.dataframe[0].value
    assert list(table["Case"]) == [f"case{k:03d}" for k in range(45)]
    assert table["Score"][0] == 0.99
    assert list(table["Review"].unique()) == ["unread"]
    at.selectbox(key="order").set_value("Case").run()
    at.button(key="table").click().run()
    assert not at.dataframe
    at.button(key="table").click().run()
    assert at.selectbox(key="order").value == "Case"
    assert not at.exception


def test_thousands_of_studies_stay_quick(tmp_path: Path) -> None:
    from medvl_ui import worklist

    study = json.dumps(study_json("x", findings=[finding(f"f{n}", "kidney_left", n / 20, "absent") for n in range(20)]))
    for k in range(1000):
        write_study(tmp_path, study, case_id=f"case{k:04d}")
    open_station(tmp_path)
    worklist.rows()
    at = page(tmp_path)
    started = time.perf_counter()
    at.button(key="next").click().run()
    assert time.perf_counter() - started < 2.0  # 0.1 s on a free machine
    assert shown(at) == "case0001 done"


def test_a_ledger_on_a_server_is_asked_now_and_then_and_may_be_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    asked, now = [], [0.0]
    waiting = Row("c1waits", "waiting", "waits for inference")

    def told(server: object) -> dict[str, Row]:
        asked.append(server)
        if len(asked) == 2:
            raise sa.exc.OperationalError("", {}, ConnectionError())
        return {"c1waits": waiting} if len(asked) == 1 else {}

    monkeypatch.setattr(index_module, "rows_of", told)
    index = Index(tmp_path, "postgresql://reader@db/medvl", clock=lambda: now[0])
    for at, expected, n in ((0.0, [waiting], 1), (2.0, [waiting], 1), (6.0, [waiting], 2), (12.0, [], 3)):
        now[0] = at
        assert list(index.rows()) == expected
        assert len(asked) == n


def test_rows_of_an_open_ledger_are_those_of_its_file(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add([Case("queued1", {})], By("a", "b", "c"))
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    assert index_module.rows_of(engine) == ledger_rows(tmp_path / "ledger.sqlite") != {}
    engine.dispose()
