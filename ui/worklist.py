"""The sidebar: studies with status and what to see first; a search and a filter keep long lists short."""

from __future__ import annotations

import streamlit as st

from .results import Status, Study
from .wording import STATUS, headline, plain

SHOWN = 60
_FILTERS: dict[str, tuple[Status, ...]] = {
    "All studies": ("done", "skipped", "failed", "unreadable"),
    "Read": ("done",),
    "Skipped, failed or unreadable": ("skipped", "failed", "unreadable"),
}


def choose(studies: list[Study]) -> Study:
    """Draw the list and return the study on the page: the one clicked last, at first the list's first."""
    st.subheader(f"{len(studies)} studies" if len(studies) != 1 else "1 study")
    rows = _filtered(studies) if len(studies) > 1 else studies
    known = {study.case_id: study for study in studies}
    chosen = known.get(st.session_state.get("case", ""), (rows or studies)[0])
    for study in rows[:SHOWN]:
        _row(study, chosen=study.case_id == chosen.case_id)
    if not rows:
        st.caption("No study fits. Clear the search or choose another filter.")
    if len(rows) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(rows)} are listed. Search by case or finding to see others.")
    return chosen


def _filtered(studies: list[Study]) -> list[Study]:
    wanted = str(st.text_input("Search", key="search", placeholder="Case, finding or region")).strip().lower()
    statuses = _FILTERS[st.selectbox("Show", list(_FILTERS), key="filter")]
    return [study for study in studies if study.status in statuses and (not wanted or wanted in _searchable(study))]


def _searchable(study: Study) -> str:
    positive = (f"{f.label} {f.finding} {f.region}" for f in study.findings if f.verdict != "absent")
    return " ".join((study.case_id, STATUS[study.status], headline(study), *positive)).lower()


def _row(study: Study, *, chosen: bool) -> None:
    label = plain(study.case_id) + ("" if study.status == "done" else f" :small[:gray[{STATUS[study.status]}]]")
    st.button(
        label,
        key=f"case_{study.case_id}",
        type="primary" if chosen else "secondary",
        width="stretch",
        on_click=_open,
        args=(study.case_id,),
    )
    st.caption(plain(headline(study)))


def _open(case_id: str) -> None:
    st.session_state["case"] = case_id
    st.session_state.pop("finding", None)
