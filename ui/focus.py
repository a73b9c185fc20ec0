"""What the images are about: a finding of the list, or a map of something else that the reader asked for."""

from __future__ import annotations

import streamlit as st

from .study import FindingRecord, Study


def look_at(key: str) -> None:
    """Bring a finding into focus: its evidence is laid over the image and the planes go there."""
    st.session_state["finding"] = key
    st.session_state["jumps"] = st.session_state.get("jumps", 0) + 1
    st.session_state.pop("asked_map", None)


def show_map(study: Study, record: FindingRecord, told: str) -> None:
    """Lay a map over the image in place of a finding's, until a finding is chosen; `told` says what it shows."""
    st.session_state["asked_map"] = (study.case_id, record, told)
    st.session_state["jumps"] = st.session_state.get("jumps", 0) + 1


def asked_map(study: Study) -> tuple[FindingRecord, str] | None:
    """The map asked for, and what it shows; None where the finding in focus has the image."""
    kept = st.session_state.get("asked_map")
    return (kept[1], kept[2]) if kept is not None and kept[0] == study.case_id else None


def hide_map() -> None:
    """The finding in focus has the image again."""
    st.session_state.pop("asked_map", None)
    st.session_state["jumps"] = st.session_state.get("jumps", 0) + 1
