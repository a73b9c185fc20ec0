"""The sign-off pane: what a person decides about each finding, saved at the click, and the signature under all of it."""

from __future__ import annotations

import streamlit as st
from sqlalchemy.exc import DatabaseError

from medvl.errors import MedvlError
from medvl.review.answers import Item, known_findings
from medvl.review.record import MAY_DECIDE, Choice, Decision, Kept, Status, Who, moment

from . import deciding
from .deciding import Seen
from .exporting import show_exports
from .reviews import reviews
from .station import station
from .study import Study
from .wording import BADGES, plain, spoken

_MARKS = {Choice.accept: ":green[✓]", Choice.reject: ":red[✗]", Choice.correct: ":orange[✎]", Choice.added: ":orange[+]"}
_STATUS = {
    Status.unread: ":gray-badge[unread]",
    Status.in_review: ":orange-badge[in review]",
    Status.signed: ":green-badge[✓ signed]",
    Status.rejected: ":red-badge[✗ rejected]",
}
_OPPOSITE = {"present": "absent", "absent": "present"}


def show(study: Study, who: Who) -> None:
    """Draw the pane for somebody who is signed in; a reader sees what others decided."""
    try:
        desk = reviews(station().root)
        review = desk.review(study.case_id)
    except (MedvlError, DatabaseError) as error:
        st.error(plain(str(error) if isinstance(error, MedvlError) else "The record of decisions cannot be read."))
        return
    seen = Seen(desk, review, who)
    deciding.show_note(seen.case)
    _head(seen)
    closed = review.status in (Status.signed, Status.rejected)
    may = who.role in MAY_DECIDE
    if not may:
        st.caption(plain(f"You are signed in as {who.role}: you may look, not decide."))
    _answers(seen, may=may and not closed)
    if may and closed:
        _closed(seen)
    elif may:
        _missed(seen)
        _finish(seen)
    show_exports(seen)


def _head(seen: Seen) -> None:
    review = seen.review
    needed = sum(item.verdict != "absent" for item in review.answers.items)
    spent = review.seconds.get(seen.who.name, 0.0)
    facts = [f"{needed - len(review.missing)} of {needed} decided"]
    facts += [f"report text version {review.text.version}"] if review.text else []
    facts += [f"{spent // 60:.0f}:{spent % 60:02.0f} min read"] if spent else []
    st.markdown(f"{_STATUS[review.status]} :small[:gray[{plain(', '.join(facts))}]]")
    if review.by and review.status != Status.unread:
        last = f"Last by {review.by}, {moment(review.at)}" + (f": {review.comment}" if review.comment else "")
        st.caption(plain(last))
    if review.earlier and review.status == Status.unread:
        st.info("The model answered anew since this study was decided. The earlier decisions are kept as history.")


def _answers(seen: Seen, *, may: bool) -> None:
    """The finding in focus with its three buttons, always at the same place; below it all of them."""
    review = seen.review
    items = deciding.in_order(review)
    names = [item.name for item in items]
    wanted = str(st.session_state.get("finding") or "")
    focus = wanted if wanted in names else names[0] if names else ""
    item = review.answers.item(focus)
    if item is not None:
        with st.container(border=True):
            _in_focus(seen, item, review.decisions.get(focus), names, may=may)
    with st.container(key="decisions", gap="xxsmall"):
        for answer in items:
            st.button(
                _row(answer, review.decisions.get(answer.name)),
                key=seen.key("row", answer.name),
                type="primary" if answer.name == focus else "tertiary",
                width="stretch",
                on_click=deciding.look_at,
                args=(answer.name,),
            )
        _added(seen, may=may)


def _row(item: Item, kept: Kept | None) -> str:
    """Mark, name and place of an answer, and what was decided."""
    open_mark = ":gray[·]" if item.verdict == "absent" else ":orange[○]"
    mark = _MARKS[kept.decision.choice] if kept else open_mark
    said = kept.decision.presence if kept else item.verdict
    place = kept.decision.region if kept else item.region
    return f"{mark} {plain(item.label)} :small[:gray[{plain(spoken(place))}, {said}]]"


def _in_focus(seen: Seen, item: Item, kept: Kept | None, names: list[str], *, may: bool) -> None:
    said = f"by {plain(kept.by)}, {plain(moment(kept.at))}" if kept else "not decided"
    badge = {str(verdict): text for verdict, text in BADGES.items()}.get(item.verdict, "")
    st.markdown(f"**{plain(item.label)}** :small[:gray[{plain(spoken(item.region))}]] {badge}  \n:small[:gray[{said}]]")
    if not may:
        if kept and kept.decision.comment:
            st.text(kept.decision.comment)
        return
    version = str(seen.review.versions.get(item.name, 0))
    comment = seen.key("comment", item.name, version)
    _choices(seen, item, kept, comment)
    st.text_input(
        "Comment",
        value=kept.decision.comment if kept else "",
        key=comment,
        placeholder="Comment, saved with the decision",
        label_visibility="collapsed",
        max_chars=1000,
        on_change=deciding.decide if kept else None,
        args=(seen, kept.decision, comment) if kept else None,
        kwargs={"onward": False} if kept else None,
    )
    if st.session_state.get("correcting") == item.name:
        _correction(seen, item, kept, comment)
    _steps(seen, item, kept, names)


def _choices(seen: Seen, item: Item, kept: Kept | None, comment: str) -> None:
    """The three buttons."""
    choice = kept.decision.choice if kept else None
    buttons = st.container(horizontal=True, gap="xsmall")
    buttons.button(
        "Accept",
        key=seen.key("accept", item.name),
        type="primary" if choice == Choice.accept else "secondary",
        help=f"It is {item.verdict}",
        shortcut="A",
        on_click=deciding.decide,
        args=(seen, Decision(item.name, Choice.accept), comment),
    )
    opposite = _OPPOSITE.get(item.verdict)
    buttons.button(
        "Reject",
        key=seen.key("reject", item.name),
        type="primary" if choice == Choice.reject else "secondary",
        help=f"It is {opposite}" if opposite else "An undecided answer is neither right nor wrong: correct or accept it",
        disabled=opposite is None,
        shortcut="X",
        on_click=deciding.decide,
        args=(seen, Decision(item.name, Choice.reject), comment),
    )
    buttons.button(
        "Correct",
        key=seen.key("correct", item.name),
        type="primary" if choice == Choice.correct else "secondary",
        help="Say what is right, and where",
        shortcut="D",
        on_click=deciding.start_correcting,
        args=(item.name,),
    )


def _correction(seen: Seen, item: Item, kept: Kept | None, comment: str) -> None:
    before = kept.decision if kept and kept.decision.choice == Choice.correct else None
    start = before.presence if before else _OPPOSITE.get(item.verdict, "present")
    st.segmented_control(
        "It is", ["present", "absent", "undecided"], default=start, key=seen.key("presence", item.name), required=True
    )
    regions = list(dict.fromkeys((item.region, *seen.review.answers.regions)))
    at = regions.index(before.region) if before and before.region in regions else 0
    st.selectbox("Where, if present", regions, index=at, format_func=spoken, key=seen.key("region", item.name))
    buttons = st.container(horizontal=True, gap="xsmall")
    buttons.button(
        "Save", key=seen.key("save", item.name), shortcut="S", on_click=deciding.correct, args=(seen, item.name, comment)
    )
    buttons.button("Leave", key=seen.key("leave", item.name), shortcut="Esc", on_click=deciding.start_correcting, args=(None,))


def _steps(seen: Seen, item: Item, kept: Kept | None, names: list[str]) -> None:
    at = names.index(item.name)
    buttons = st.container(horizontal=True, gap="xsmall")
    for label, letter, to in (("Back", "K", at - 1), ("Next", "J", (at + 1) % len(names))):
        buttons.button(
            label,
            key=seen.key(label, item.name),
            type="tertiary",
            shortcut=letter,
            on_click=deciding.look_at,
            args=(names[to],),
        )
    if kept is not None:
        buttons.button(
            "Undo",
            key=seen.key("undo", item.name),
            type="tertiary",
            shortcut="U",
            on_click=deciding.take_back,
            args=(seen, item.name),
        )


def _added(seen: Seen, *, may: bool) -> None:
    for kept in seen.review.added:
        name, undo = st.columns([4, 1], vertical_alignment="center")
        told = kept.decision
        name.markdown(
            f"{_MARKS[told.choice]} {plain(told.label)} :small[:gray[{plain(spoken(told.region))}, by {plain(kept.by)}]]"
        )
        if may:
            key = seen.key("drop", told.item)
            undo.button("Drop", key=key, type="tertiary", on_click=deciding.take_back, args=(seen, told.item))


def _missed(seen: Seen) -> None:
    """Add a finding that the model missed."""
    with st.popover("Add a finding the model missed", width="stretch"):
        known = list(known_findings(seen.desk.folder, seen.review.answers).items())
        label = {pair: pair[1] for pair in known}
        st.selectbox("Finding", known, index=None, format_func=label.__getitem__, key=seen.key("missed"))
        st.text_input("Or in your own words", key=seen.key("own"), max_chars=200, help="Own words are no label for training.")
        st.selectbox("Where", seen.review.answers.regions, format_func=spoken, key=seen.key("place"))
        st.button("Add", key=seen.key("add"), type="primary", on_click=deciding.add, args=(seen,))


def _finish(seen: Seen) -> None:
    """Sign, or put the study aside."""
    missing = seen.review.missing
    buttons = st.container(horizontal=True, gap="xsmall")
    buttons.button(
        "Sign",
        key=seen.key("sign"),
        type="secondary" if missing else "primary",
        icon=":material/signature:",
        disabled=bool(missing) or not seen.review.answers.done,
        shortcut="Shift+S",
        on_click=deciding.sign,
        args=(seen,),
    )
    with buttons.popover("Reject study"):
        st.text_input("Why can this study not be read?", key=seen.key("reason"), max_chars=500)
        st.button("Reject the study", key=seen.key("reject_study"), on_click=deciding.reject_study, args=(seen,))
    if missing:
        named = ", ".join(item.label for item in missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        st.caption(plain(f"Before signing, decide: {named}"))


def _closed(seen: Seen) -> None:
    with st.popover("Open again", width="stretch"):
        st.text_input("Why is it opened again?", key=seen.key("reason"), max_chars=500)
        st.button("Open the study", key=seen.key("open"), type="primary", on_click=deciding.open_again, args=(seen,))
