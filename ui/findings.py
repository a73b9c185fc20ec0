"""The findings of one study as a list; a click lays the evidence over the image and moves the cursor there."""

from __future__ import annotations

import streamlit as st

from .focus import look_at
from .study import FindingRecord, Study, ranked
from .wording import BADGES, finding_name, plain, reason_lines, score_text, spoken

_SHORT = {"calibrated": "cal.", "uncalibrated": "uncal."}
_COLUMNS = [5.0, 2.5, 2.8]
_SCORES = "cal.: a calibrated probability. uncal.: not calibrated, an order and no probability."


def choose_finding(study: Study) -> FindingRecord | None:
    """Draw the list and return the finding in focus; at first the top one that is not absent."""
    if not study.findings:
        st.info("No findings were scored in this study. The regions below say why.")
        return None
    rows = ranked(study.findings)
    focus = next((f for f in rows if f.key == st.session_state.get("finding")), None)
    focus = focus or next((f for f in rows if f.verdict != "absent"), None)
    only = st.toggle("Hide absent", key="hide_absent")
    shown = [f for f in rows if not only or f.verdict != "absent"]
    told = ("Finding", "Score", "Verdict")
    for column, title in zip(st.columns(_COLUMNS), told, strict=True):
        column.caption(title, help=_SCORES if title == "Score" else None)
    with st.container(key="findings"):
        for finding in shown:
            _row(finding, chosen=focus is not None and finding.key == focus.key)
        if not shown:
            st.caption("Every finding of this study is absent.")
    return focus


def _row(finding: FindingRecord, *, chosen: bool) -> None:
    name, score, verdict = st.columns(_COLUMNS, vertical_alignment="center")
    name.button(
        f"{plain(finding_name(finding))}  :small[:gray[{plain(spoken(finding.region))}]]",
        key=f"finding_{finding.key}",
        type="primary" if chosen else "tertiary",
        width="stretch",
        on_click=look_at,
        args=(finding.key,),
    )
    number, _, word = score_text(finding).partition(" ")
    score.markdown(f"{plain(number)} :small[:gray[{_SHORT.get(word, word)}]]")
    verdict.markdown(BADGES[finding.verdict])
    if finding.verdict == "undecided":
        for line in reason_lines(finding.reasons) or ["No reason was recorded."]:
            st.caption(plain(line))
