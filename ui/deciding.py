"""What the buttons of the sign-off pane do: save at once, and say in words what became of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st
from sqlalchemy.exc import DatabaseError

from medvl.errors import MedvlError
from medvl.review.answers import Item
from medvl.review.desk import Reviews
from medvl.review.record import ADDED, Choice, ConflictError, Decision, Review, Who, moment
from medvl.review.state import spoken as said_in_words

from . import focus
from .wording import plain


@dataclass(frozen=True)
class Seen:
    """What was on the page when a button was drawn: nothing newer may be overwritten by it.

    Args:
        review: the study's state then.
    """

    desk: Reviews
    review: Review
    who: Who

    @property
    def case(self) -> str:
        """The study's id."""
        return self.review.answers.case_id

    @property
    def results(self) -> str:
        """The answers' hash."""
        return self.review.answers.sha256

    def key(self, *parts: str) -> str:
        """A key of a widget of this study."""
        return "_".join(("signoff", self.case, *parts))


def decide(seen: Seen, decision: Decision, comment_key: str = "", *, onward: bool = True) -> None:
    """Save a decision with the comment that stands in its field; then go on to the next finding that needs one."""
    comment = str(st.session_state.get(comment_key, decision.comment)) if comment_key else decision.comment
    said = Decision(**{**vars(decision), "comment": comment})
    version = seen.review.versions.get(said.item, 0)
    done = attempt(
        seen, lambda: seen.desk.save(seen.case, said, seen.who, expected_version=version, results=seen.results), said.choice.value
    )
    if done:
        st.session_state.pop("correcting", None)
        if onward:
            go_on(seen, said.item)


def correct(seen: Seen, item: str, comment_key: str) -> None:
    """Save the correction that the fields say."""
    presence = str(st.session_state.get(seen.key("presence", item)) or "")
    region = str(st.session_state.get(seen.key("region", item)) or "") if presence == "present" else ""
    decide(seen, Decision(item, Choice.correct, presence, region), comment_key)


def add(seen: Seen) -> None:
    """Save a finding that the model missed."""
    finding = st.session_state.get(seen.key("missed")) or ("", "")
    own = str(st.session_state.get(seen.key("own"), "")).strip()
    region = str(st.session_state.get(seen.key("place")) or "")
    key, label = ("", own) if own else finding
    decide(seen, Decision(f"{ADDED}{secrets.token_hex(4)}", Choice.added, "", region, key, label), onward=False)
    st.session_state[seen.key("own")] = ""


def take_back(seen: Seen, item: str) -> None:
    """Undo a decision; it stays in the history."""
    version = seen.review.versions.get(item, 0)
    attempt(
        seen,
        lambda: seen.desk.withdraw(seen.case, item, seen.who, expected_version=version, results=seen.results),
        "taking it back",
    )


def write_text(seen: Seen, text: str, proposed: str) -> None:
    """Save what stands in the field of the report text; words that could not be saved stay on the page."""
    waiting: dict[str, str] = st.session_state.setdefault("unsaved_texts", {})
    done = attempt(
        seen,
        lambda: seen.desk.save_text(
            seen.case, text, seen.who, proposed=proposed, expected_version=seen.review.text_version, results=seen.results
        ),
        "your text",
    )
    if done:
        waiting.pop(seen.case, None)
    else:
        waiting[seen.case] = text


def sign(seen: Seen) -> None:
    """Sign the study."""
    version = seen.review.version
    attempt(seen, lambda: seen.desk.sign(seen.case, seen.who, expected_version=version, results=seen.results), "your signature")


def reject_study(seen: Seen) -> None:
    """Put the study aside for the reason in the field."""
    reason, version = str(st.session_state.get(seen.key("reason"), "")), seen.review.version
    attempt(
        seen,
        lambda: seen.desk.reject(seen.case, seen.who, reason, expected_version=version, results=seen.results),
        "rejecting the study",
    )


def open_again(seen: Seen) -> None:
    """Open a signed or rejected study for the reason in the field."""
    reason, version = str(st.session_state.get(seen.key("reason"), "")), seen.review.version
    attempt(
        seen,
        lambda: seen.desk.unsign(seen.case, seen.who, reason, expected_version=version, results=seen.results),
        "opening it again",
    )


def start_correcting(item: str | None) -> None:
    """Show the fields of a correction, or hide them."""
    st.session_state["correcting"] = item


def look_at(item: str) -> None:
    """Bring a finding into focus, with its evidence."""
    focus.look_at(item)
    st.session_state.pop("correcting", None)


def go_on(seen: Seen, item: str) -> None:
    """The next finding after `item` that needs a decision; it stays where none does."""
    names = [answer.name for answer in in_order(seen.review)]
    missing = {answer.name for answer in seen.review.missing} - {item}
    at = names.index(item) if item in names else -1
    following = [name for name in (*names[at + 1 :], *names[: max(at, 0)]) if name in missing]
    if following:
        look_at(following[0])


def in_order(review: Review) -> list[Item]:
    """Answers in reading order: present, undecided, absent; within each the highest score first."""
    order = {"present": 0, "undecided": 1, "absent": 2}
    return sorted(review.answers.items, key=lambda i: (order.get(i.verdict, 1), -(i.score if i.score is not None else -1.0)))


def show_note(case_id: str) -> None:
    """What became of the last click, if it was not simply done."""
    told = st.session_state.pop("signoff_note", None)
    if told is not None and told[0] == case_id:
        st.warning(told[1], icon=":material/group:" if told[2] else ":material/error:")


def attempt(seen: Seen, change: Callable[[], object], yours: str) -> bool:
    """Whether a change was saved; the page says why where it was not."""
    try:
        change()
    except ConflictError as error:
        _note(seen, _conflict(error, yours), conflict=True)
    except MedvlError as error:
        _note(seen, plain(f"Not saved: {error}"))
    except DatabaseError as error:
        _note(seen, f"Not saved: the record of decisions cannot be written ({type(error).__name__}). Look at the disk.")
    else:
        return True
    return False


def _conflict(error: ConflictError, yours: str) -> str:
    what = said_in_words(error.theirs.decision) if error.theirs is not None else error.what
    return (
        f"**{plain(error.by)}** was faster, at {plain(moment(error.at))}: {plain(what)}.  \n"
        f"Yours ({plain(yours)}) was not saved, and nothing was overwritten. Theirs is shown below; decide again if you disagree."
    )


def _note(seen: Seen, text: str, *, conflict: bool = False) -> None:
    st.session_state["signoff_note"] = (seen.case, text, conflict)
