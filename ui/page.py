"""The page: worklist beside one study's images, findings and details."""

from __future__ import annotations

import streamlit as st

from medvl.errors import ConfigError
from medvl.records import RESEARCH_USE

from . import admin, fellows, focus, plain_images, signing, volume_view, watching, worklist
from .access import User
from .details import show_details
from .findings import choose_finding
from .study import FindingRecord, Study, region_center
from .transport import STATIC
from .wording import STATUS_SENTENCE, plain, reason_lines, series_facts


def draw() -> None:
    """Draw the page for the results folder of this process."""
    st.set_page_config(page_title="medvl viewer", layout="wide")
    st.html(f"<style>{(STATIC / 'page.css').read_text(encoding='utf-8')}</style>")
    user = signing.admit()
    with st.sidebar:
        st.markdown("**medvl** :small[:gray[viewer]]")
        signing.show_user(user)
        study = worklist.choose()
        st.toggle("Plain images", key="plain", help="Single slices, for browsers that cannot run the interactive viewer.")
        st.caption(RESEARCH_USE)
    if signing.administration_open():
        admin.show()
    elif study is None:
        _empty()
    elif worklist.table_open():
        worklist.show_table()
    else:
        _study(study, user)
        volume_view.read_ahead(worklist.listed(), study)


def _empty() -> None:
    st.subheader("No results yet")
    st.write("This folder holds no studies. Write some with")
    st.code("medvl infer FOLDER --bundle NAME --out DIR", language=None)
    st.write("and reload this page.")
    _research_use()


def _study(study: Study, user: User) -> None:
    head, use = st.columns([3, 2], vertical_alignment="bottom")
    head.markdown(f"#### {plain(study.case_id)}  :small[:gray[{plain(series_facts(study.series) if study.series else '')}]]")
    with use:
        _research_use()
    if study.status != "done":
        _stopped(study, user)
        return
    for line in reason_lines(study.reasons):
        st.warning(plain(line))
    images, readings = st.columns([2, 1], gap="small")
    with readings, st.container(key="readings"):
        finding = choose_finding(study)
        show_details(study, finding, user)
    _note(study, finding, user)
    with images, st.container(key="images"):
        shown = _asked_map(study) or finding
        other = None if st.session_state.get("plain") else fellows.beside(study)
        if other is not None:
            watching.looked(other[0].case_id, user, "view opened", beside=study.case_id)
        if other is None or not _pair(study, shown, *other):
            _images(study, shown)


def _asked_map(study: Study) -> FindingRecord | None:
    """The map that has the image in place of the finding in focus, with a line that says so."""
    asked = focus.asked_map(study)
    if asked is None:
        return None
    told, back = st.columns([4, 1], vertical_alignment="center")
    told.markdown(f":orange-badge[map of] {plain(asked[1])}")
    back.button("Back to the finding", key="hide_map", type="tertiary", on_click=focus.hide_map)
    return asked[0]


def _note(study: Study, finding: FindingRecord | None, user: User) -> None:
    """Enter into the audit log what is on the page; a folder that takes no log is read all the same, and said so."""
    try:
        watching.watch(study, finding, user)
    except ConfigError as error:
        st.caption(plain(f"What is looked at cannot be logged here: {error}"))


def _stopped(study: Study, user: User) -> None:
    st.warning(STATUS_SENTENCE[study.status])
    for line in reason_lines(study.reasons) or ["No reason was recorded."]:
        st.text(line)
    show_details(study, None, user)
    _note(study, None, user)


def _pair(study: Study, finding: FindingRecord | None, other: Study, region: str) -> bool:
    """Two studies beside each other, both at the region in which they are alike; False when that cannot be drawn."""
    mine, theirs = volume_view.load_picture(study), volume_view.load_picture(other)
    if mine is None or theirs is None:
        return False
    same = next((f for f in other.findings if finding is not None and f.key == finding.key), None)
    here, there = region_center(study, region), region_center(other, region)
    if here is None or there is None:  # then both start at the same share of the scanned length
        here = there = None
    left = volume_view.Side(study.case_id, study, mine, finding, anchor_lps=here)
    right = volume_view.Side(other.case_id, other, theirs, same, anchor_lps=there)
    drawn = volume_view.show_pair(left, right, jump=f"{other.case_id}#{st.session_state.get('jumps', 0)}")
    start = "Both start at the region" if here else "Where the region lies there is not known: both start equally far up"
    st.caption(f"Left: the study being read. Right: the similar one. {start} and scroll together.")
    return drawn


def _images(study: Study, finding: FindingRecord | None) -> None:
    picture = volume_view.load_picture(study)
    if picture is None:
        return
    if st.session_state.get("plain"):
        plain_images.show(study, picture, finding)
        return
    jump = f"{finding.key if finding else ''}#{st.session_state.get('jumps', 0)}"
    if not volume_view.show(study, picture, finding, jump):
        plain_images.show(study, picture, finding)
    if picture.oblique_deg > 1:
        turned = f"{picture.oblique_deg:.0f} degrees off the patient's"
        st.caption(f"Oblique series: planes follow the scan's own axes, {turned}. Letters name the nearest direction.")


def _research_use() -> None:
    st.caption(RESEARCH_USE, text_alignment="right")
