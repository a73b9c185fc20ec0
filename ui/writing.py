"""The field of the report text: saved with the review when the reader leaves it, a draft until the study is signed."""

from __future__ import annotations

import streamlit as st
from sqlalchemy.exc import DatabaseError

from medvl.errors import MedvlError
from medvl.review.record import LONGEST_TEXT, MAY_DECIDE, Review, Status, Who, moment

from . import deciding
from .deciding import Seen
from .reviews import note, reviews
from .station import station
from .study import Study
from .wording import plain

DRAFT, FINAL = "DRAFT, not final: nothing here is a report until a person signs the study.", "Signed with the study."
_CLOSED = (Status.signed, Status.rejected)


def show_editor(study: Study, who: Who, proposed: str) -> None:
    """Draw the field with the text saved last, else with the software's draft `proposed`."""
    try:
        desk = reviews(station().root)
        seen = Seen(desk, desk.review(study.case_id), who)
    except (MedvlError, DatabaseError) as error:
        st.error(plain(str(error) if isinstance(error, MedvlError) else "The record of decisions cannot be read."))
        return
    deciding.show_note(seen.case)
    may = who.role in MAY_DECIDE and seen.review.status not in _CLOSED
    key = seen.key("text", str(seen.review.text_version))
    waiting: str | None = st.session_state.get("unsaved_texts", {}).get(seen.case)
    shown = _kept(seen.review) or proposed
    st.text_area(
        "Report text",
        value=shown if waiting is None else waiting,
        key=key,
        height=240,
        max_chars=LONGEST_TEXT,
        disabled=not may,
        help="Plain text. Saved when you leave the field, or with Ctrl+Enter.",
        on_change=_save,
        args=(seen, key, proposed),
    )
    st.caption(plain(_state(seen.review, proposed, may=may)))
    if waiting is not None and may:
        _two(seen, waiting, proposed)
    _buttons(seen, proposed, shown, may=may)


def _kept(review: Review) -> str:
    return review.text.text if review.text else ""


def _state(review: Review, proposed: str, *, may: bool) -> str:
    """What becomes of the text, in a sentence or two."""
    text = review.text
    if text is None:
        told = "The software's words; nothing is saved before you change them." if proposed else "Nothing is written yet."
        return told if may else f"{told} The study is {review.status}, or your role may only look: the field is closed."
    last = f"Version {text.version}, saved by {text.by}, {moment(text.at)}."
    return f"{last} {FINAL if review.status == Status.signed else 'A draft until the study is signed.'}"


def _save(seen: Seen, key: str, proposed: str) -> None:
    text = str(st.session_state.get(key, ""))
    if text.strip() != (_kept(seen.review) or proposed).strip():
        deciding.write_text(seen, text, proposed)


def _two(seen: Seen, waiting: str, proposed: str) -> None:
    """Words that somebody else's save kept from being saved: both are here, and the reader says which to go on with."""
    theirs = seen.review.text
    st.markdown(f"**Saved meanwhile by {plain(theirs.by)}**" if theirs else "**The text was taken back meanwhile**")
    if theirs:
        st.text(theirs.text)
    buttons = st.container(horizontal=True, gap="xsmall")
    buttons.button("Go on with theirs", key=seen.key("theirs"), on_click=_forget, args=(seen.case,))
    buttons.button("Save mine after theirs", key=seen.key("mine"), on_click=deciding.write_text, args=(seen, waiting, proposed))


def _forget(case_id: str) -> None:
    st.session_state.get("unsaved_texts", {}).pop(case_id, None)


def _buttons(seen: Seen, proposed: str, shown: str, *, may: bool) -> None:
    buttons = st.container(horizontal=True, gap="xsmall")
    final = seen.review.status == Status.signed and seen.review.text is not None

    def made() -> bytes:
        note(station().root, seen.who, "exported", seen.case, kind="txt", status=str(seen.review.status))
        return f"{FINAL if final else DRAFT}\n\n{shown}\n".encode()

    buttons.download_button(
        "Save as a file", made, f"report-{seen.case}.txt", "text/plain", key=seen.key("txt"), on_click="ignore"
    )
    if may and seen.review.text is not None:
        buttons.button(
            "Back to the software's words" if proposed else "Take the text back",
            key=seen.key("drop"),
            type="tertiary",
            on_click=deciding.write_text,
            args=(seen, "", proposed),
        )
