"""The worklist: beside the images as a short list with the next study a key away, and on a page of its own as a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import pandas as pd
import streamlit as st

from .extras import extras
from .index import Index, Row
from .results import read_study, stamp_of
from .reviews import statuses
from .station import station
from .study import ReasonRecord, Status, Study
from .wording import STATUS, plain

PAGE = 20
RESULTS: dict[str, tuple[Status, ...]] = {
    "All studies": ("done", "skipped", "failed", "unreadable", "waiting", "quarantined"),
    "Read": ("done",),
    "Skipped, failed or unreadable": ("skipped", "failed", "unreadable", "quarantined"),
    "Waiting for inference": ("waiting",),
}
REVIEWS: dict[str, tuple[str, ...]] = {
    "Any review": ("unread", "in review", "signed", "rejected"),
    "Not signed": ("unread", "in review"),
    "Unread": ("unread",),
    "In review": ("in review",),
    "Signed": ("signed",),
    "Rejected": ("rejected",),
}
ORDERS: dict[str, Callable[[Row, float], Any]] = {
    "Priority": lambda row, now: -row.priority(now),
    "Oldest first": lambda row, now: row.since,
    "Newest first": lambda row, now: -row.since,
    "Case": lambda row, now: row.case_id,
}
_MOST_ROWS = 20  # of a table that is as high as its rows
CLOSED = ("signed", "rejected")
_MARKS = {"in review": ":blue[◐]", "signed": ":green[✓]", "rejected": ":orange[✕]"}
HOW_ORDERED = (
    "Priority, 0 to 100: up to 60 for the highest score of a present finding (an uncalibrated score counts half), up to 25 for "
    "answers withheld (5 or more, or the whole study), up to 15 for age (72 hours or more). Signed and rejected ones come last."
)


@lru_cache(maxsize=4)
def _index(root: Any) -> Index:
    return Index(root, extras().ledger)


def rows() -> tuple[Row, ...]:
    """All studies of the open results folder."""
    return _index(station().root).rows()


def choose() -> Study | None:
    """Draw the list beside the page and return the study on the page; None when the folder holds none.

    It is the one opened last; at first, or when that one is gone, the list's first.
    """
    everything = rows()
    if not everything:
        return None
    state = statuses(station().root, id(everything))
    listed = _asked(everything, state)
    st.session_state["listed"] = tuple(row.case_id for row in listed)
    known = {row.case_id: row for row in everything}
    chosen = known.get(st.session_state.get("case", ""), (listed or everything)[0])
    st.session_state["case"] = chosen.case_id
    _steps()
    if not listed:
        st.caption("No study fits. Clear the search or choose another filter.")
    elif not table_open():
        _list(listed, state, chosen.case_id)
    return _read(chosen)


def _read(row: Row) -> Study:
    root = station().root
    if row.status == "waiting" and stamp_of(root / "studies" / row.case_id) is None:
        return Study(case_id=row.case_id, status="waiting", reasons=(ReasonRecord(message=row.line),))
    return read_study(root, row.case_id)


def listed() -> list[Row]:
    """The studies of this session's list in its order."""
    known = {row.case_id: row for row in rows()}
    return [known[case_id] for case_id in st.session_state.get("listed", ()) if case_id in known]


def _asked(everything: Sequence[Row], state: dict[str, Any]) -> list[Row]:
    """The rows that search and filters leave, in the order asked for; studies that are closed come last."""
    n = len(everything)
    st.subheader(f"{n} studies" if n != 1 else "1 study")
    if n == 1:
        return list(everything)
    words = str(st.text_input("Search", key="search", placeholder="Case, finding or region")).lower().split()
    left, right = st.columns(2, gap="xsmall")
    result = RESULTS[left.selectbox("Result", list(RESULTS), key="filter")]
    review = REVIEWS[right.selectbox("Review", list(REVIEWS), key="review_filter")]
    order = ORDERS[st.session_state.get("ordered", "Priority")]
    now = time.time()

    def fits(row: Row) -> bool:
        return row.status in result and str(state.get(row.case_id, "unread")) in review and all(w in row.words for w in words)

    found = sorted((row for row in everything if fits(row)), key=lambda row: row.case_id)
    return sorted(found, key=lambda row: (state.get(row.case_id, "unread") in CLOSED, order(row, now)))


def _steps() -> None:
    """The buttons that go through the list, with their keys."""
    before, after, whole = st.columns([1, 1, 1], gap="xsmall")
    here, last = _place(), len(st.session_state["listed"]) - 1
    first, end = here == 0 or last < 0, here == last or last < 0
    before.button("Back", key="previous", shortcut="p", on_click=step, args=(-1,), disabled=first, width="stretch")
    after.button("Next", key="next", shortcut="n", on_click=step, args=(1,), disabled=end, width="stretch")
    label = "Study" if table_open() else "Table"
    whole.button(label, key="table", shortcut="w", on_click=_show, args=(not table_open(),), width="stretch")


def _place() -> int | None:
    cases = st.session_state["listed"]
    case = st.session_state.get("case")
    return cases.index(case) if case in cases else None


def step(by: int) -> None:
    """Open the study that comes `by` places after the open one; the list's first when that one is not in it."""
    cases, here = st.session_state.get("listed", ()), _place()
    if cases:
        open_study(cases[0 if here is None else min(max(here + by, 0), len(cases) - 1)])


def _list(listed: Sequence[Row], state: dict[str, Any], chosen: str) -> None:
    """One page of the list: that of the open study, or the one turned to."""
    last = (len(listed) - 1) // PAGE
    page = min(st.session_state.get("page", (_place() or 0) // PAGE), last)
    now = time.time()
    with st.container(gap="xxsmall", key="worklist"):
        for row in listed[page * PAGE : (page + 1) * PAGE]:
            _row(row, str(state.get(row.case_id, "unread")), round(row.priority(now)), chosen=row.case_id == chosen)
    if last:
        _pages(page, last, len(listed))


def _pages(page: int, last: int, n: int) -> None:
    back, told, on = st.columns([1, 3, 1], gap="xsmall", vertical_alignment="center")
    back.button("‹", key="page_back", help="Earlier in the list", on_click=_turn, args=(page - 1,), disabled=page == 0)
    told.caption(f"{page * PAGE + 1} to {min((page + 1) * PAGE, n)} of {n}", text_alignment="center")
    on.button("›", key="page_on", help="Later in the list", on_click=_turn, args=(page + 1,), disabled=page == last)


def _turn(page: int) -> None:
    st.session_state["page"] = page


def _row(row: Row, review: str, priority: int, *, chosen: bool) -> None:
    parts = [plain(row.case_id), f":small[:gray[{priority}]]"]
    parts += [f":small[:gray[{STATUS[row.status]}]]"] if row.status != "done" else []
    parts += [_MARKS[review]] if review in _MARKS else []
    st.button(
        " ".join(parts),
        key=f"case_{row.case_id}",
        type="primary" if chosen else "secondary",
        width="stretch",
        on_click=open_study,
        args=(row.case_id,),
    )
    st.caption(plain(row.line))


def open_study(case_id: str) -> None:
    """Have the page show this study."""
    st.session_state["case"] = case_id
    st.session_state["table_open"] = False
    for name in ("finding", "page", "administration_open", "asked_map"):
        st.session_state.pop(name, None)


def _show(table: bool) -> None:
    st.session_state["table_open"] = table


def table_open() -> bool:
    """Whether the table has the page, instead of a study."""
    return bool(st.session_state.get("table_open"))


def show_table() -> None:
    """The whole list as a table, on the page; choosing a row opens its study."""
    found, everything = listed(), rows()
    head, order = st.columns([3, 1], vertical_alignment="bottom")
    head.markdown(f"#### Worklist  :small[:gray[{len(found)} of {len(everything)} studies]]")
    kept = list(ORDERS).index(st.session_state.get("ordered", "Priority"))
    order.selectbox("Order", list(ORDERS), index=kept, key="order", on_change=_order, help=HOW_ORDERED)
    if not found:
        st.caption("No study fits. Clear the search or choose another filter.")
        return
    key = f"table_{st.session_state.setdefault('tables', 0)}"
    st.dataframe(
        frame(found, statuses(station().root, id(everything)), time.time()),
        key=key,
        hide_index=True,
        height="content" if len(found) < _MOST_ROWS else 580,
        row_height=28,
        placeholder="",
        on_select=lambda: _picked(key),
        selection_mode="single-row",
        column_config=_columns(),
    )
    st.caption(f"Click the box before a row to open its study. {HOW_ORDERED}")


def _order() -> None:
    st.session_state["ordered"] = st.session_state["order"]  # a widget's own value is forgotten while it is not drawn


def frame(found: Sequence[Row], state: dict[str, Any], now: float) -> pd.DataFrame:
    """One line a study; texts from files as they are, for cells that show letters only."""
    return pd.DataFrame(
        {
            "Priority": [round(row.priority(now)) for row in found],
            "Case": [row.case_id for row in found],
            "Inference": [STATUS[row.status] for row in found],
            "Review": [str(state.get(row.case_id, "unread")) for row in found],
            "Top finding, or why there is none": [row.top or row.line for row in found],
            "Score": [row.score for row in found],
            "Where": [row.region for row in found],
            "Present": [row.present if row.status == "done" else None for row in found],
            "Undecided": [row.undecided if row.status == "done" else None for row in found],
            "Made (UTC)": [datetime.fromtimestamp(row.since, UTC).replace(tzinfo=None) for row in found],
        }
    )


def _columns() -> dict[str, Any]:
    number = st.column_config.NumberColumn
    return {
        "Priority": number(width=60),
        "Case": st.column_config.TextColumn(width=110),
        "Inference": st.column_config.TextColumn(width=80),
        "Review": st.column_config.TextColumn(width=80),
        "Top finding, or why there is none": st.column_config.TextColumn(width=280),
        "Score": number(width=55, format="%.2f"),
        "Where": st.column_config.TextColumn(width=100),
        "Present": number(width=65),
        "Undecided": number(width=80),
        "Made (UTC)": st.column_config.DatetimeColumn(width=130, format="YYYY-MM-DD HH:mm"),
    }


def _picked(key: str) -> None:
    chosen = st.session_state[key]["selection"]["rows"]
    cases = st.session_state.get("listed", ())
    if chosen and chosen[0] < len(cases):
        st.session_state["tables"] += 1
        open_study(cases[chosen[0]])
