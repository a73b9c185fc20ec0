"""Prompt lab: a finding in the reader's own words, asked of one region: margin, percentile, map, nearest; uncalibrated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from medvl.errors import MedvlError
from medvl.review.record import Who

from . import focus, watching
from .embeddings import Vectors, other_bundle, read_vectors
from .extras import asking, extras
from .fellows import fitting
from .maps import map_along
from .station import station
from .study import FindingRecord, Study
from .wording import plain, spoken

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CHARACTERS, SHOWN = 200, 5
WARNING = "Free prompts are uncalibrated: the margin is no probability, and no verdict follows from it."


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model makes of a text.

    Args:
        query: (E,) difference of the text's and its negation's unit embeddings, or the text's alone.
        against: how the negation was made: "yours", "derived" or "" for none.
        margin: product of the query with the region's embedding.
    """

    query: NDArray[np.float64]
    against: str
    margin: float


@dataclass(frozen=True, eq=False)
class Asked:
    """A question with its answer, kept until the next one of the study.

    Args:
        text: of the reader; denied: what it was asked against, in the reader's words.
        region: that was asked.
        map: the record whose heat map shows where, or in words why there is none.
    """

    text: str
    denied: str
    region: str
    answer: Answer
    map: FindingRecord | str


def show_lab(study: Study, finding: FindingRecord | None, who: Who | None = None) -> None:
    """Draw the pane, or say what is missing for it."""
    st.warning(WARNING)
    if extras().bundle is None and extras().opened_bundle is None:
        st.info("Start the viewer with --bundle NAME, the bundle that made these results: its text tower reads your words.")
        return
    try:
        vectors = read_vectors(station().root, study.case_id)
        bundle = extras().opened_bundle
        why_not = other_bundle(study, vectors, bundle) if bundle else None
    except MedvlError as error:
        vectors, why_not = None, str(error)
    if why_not or vectors is None:
        st.info(plain(why_not or ""))
        return
    kept: dict[str, Asked] = st.session_state.setdefault("lab_answers", {})
    wanted = _form(study, finding, list(vectors.by_region))
    try:
        if wanted is not None:
            kept.pop(study.case_id, None)
            if who is not None:  # without its words, which may name somebody
                watching.did(study.case_id, who, "free prompt asked", region=wanted[2])
            with st.spinner("Asking the model; the first question loads it"):
                kept[study.case_id] = found = _answered(study, vectors, *wanted)
            if isinstance(found.map, FindingRecord):
                focus.show_map(study, found.map, _shown(found))
        if study.case_id in kept:
            _told(study, vectors, kept[study.case_id])
    except MedvlError as error:
        st.info(plain(str(error)))


def _form(study: Study, finding: FindingRecord | None, regions: list[str]) -> tuple[str, str, str] | None:
    """The question just asked: text, what it is asked against, region."""
    first = regions.index(finding.region) if finding and finding.region in regions else 0
    with st.form("lab", border=False):
        text = st.text_input("Finding", key="lab_text", max_chars=MOST_CHARACTERS, placeholder="a stone in the left kidney")
        denied = st.text_input(
            "Against (optional)", key="lab_denied", max_chars=MOST_CHARACTERS, placeholder="made from the finding when left empty"
        )
        region = st.selectbox("Region", regions, index=first, format_func=spoken, key=f"lab_region_{study.case_id}")
        asked = st.form_submit_button("Ask")
    return (text.strip(), denied.strip(), region) if asked and text.strip() else None


def _answered(study: Study, vectors: Vectors, text: str, denied: str, region: str) -> Asked:
    answer = ask(text, denied, vectors.by_region[region])
    try:
        found: FindingRecord | str = map_along(study, vectors, region, answer.query, text)
    except MedvlError as error:
        found = str(error)
    return Asked(text, denied, region, answer, found)


def ask(text: str, denied: str, vector: NDArray[np.float32]) -> Answer:
    """The margin of a text in a region.

    Raises:
        ConfigError: others ask for too long, or the bundle reads no free text.
        BundleError: the bundle's files are missing or altered.
    """
    from medvl.heads.free_text import query_of

    with asking() as model:
        if denied:
            pair = model.embed_texts([text, denied]).double().numpy()
            query, against = pair[0] - pair[1], "yours"
        else:
            made, twin = query_of(text, model.embed_texts)
            query, against = made.double().numpy(), "derived" if twin else ""
    return Answer(query, against, float(query @ vector.astype(np.float64)))


def reference_margins(region: str, query: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(n,) margins of the bundle's reference regions; None where their answers are no embeddings."""
    bundle = extras().opened_bundle
    if bundle is None or "reference.safetensors" not in bundle:
        return None
    rows = bundle.tensors("reference.safetensors").get(region)
    if rows is None or rows.ndim != 2 or rows.shape[1] != len(query):
        return None
    return np.asarray(rows.double().numpy() @ query)


def _shown(asked: Asked) -> str:
    return f"your own words, uncalibrated: {asked.text}, {spoken(asked.region)}"


def _told(study: Study, vectors: Vectors, asked: Asked) -> None:
    answer, region = asked.answer, asked.region
    st.markdown(f"**{plain(asked.text)}**, {plain(spoken(region))}")
    st.metric("Margin, uncalibrated", f"{answer.margin:+.3f}")
    how = {
        "yours": f"against: {asked.denied}",
        "derived": "against its negation, made from your words",
        "": "without a negation: a long text",
    }
    st.caption(plain(how[answer.against]))
    margins = reference_margins(region, answer.query)
    if margins is None:
        st.text("The bundle keeps no embeddings of reference regions, so no percentile can be given.")
    else:
        share = 100 * float(((margins < answer.margin).sum() + (margins == answer.margin).sum() / 2) / len(margins))
        st.text(f"Higher than in {share:.0f} % of the {len(margins)} reference regions of the {spoken(region)}.")
    _where(study, asked)
    _nearest(study, vectors, answer, region)


def _where(study: Study, asked: Asked) -> None:
    """What the map is, and the way to it and back."""
    if isinstance(asked.map, str):
        st.text(asked.map)
        return
    now = focus.asked_map(study)
    drawn = now is not None and now[0] == asked.map
    if answers_nothing(asked.answer):
        st.text("The margin is not above 0: the map shows what speaks most for your words, not that they are true.")
    st.button(
        "Hide the map" if drawn else "Show where in the image",
        key="lab_map",
        on_click=focus.hide_map if drawn else focus.show_map,
        args=() if drawn else (study, asked.map, _shown(asked)),
    )


def answers_nothing(answer: Answer) -> bool:
    """Whether the region is no nearer to the text than to its negation."""
    return answer.margin <= 0


def _nearest(study: Study, vectors: Vectors, answer: Answer, region: str) -> None:
    """Cases that fit the words best: of the index, else of this folder."""
    from medvl.retrieval.entry import Space
    from medvl.retrieval.filters import Condition
    from medvl.retrieval.search import search

    index, bundle = extras().opened_index, extras().opened_bundle
    if index is None or bundle is None:
        found, n = fitting(station().root, study, vectors, region, answer.query)
        st.caption(plain(f"Fitting these words best, of {n} other studies of this folder with a {spoken(region)}"))
        for fellow in found:
            st.text(f"{fellow.score:+.3f}  {fellow.study.case_id}: {_present(fellow.study, region)}")
        return
    index.space.must_be(Space(bundle.name, bundle.sha256, bundle.contract.hash, len(answer.query)), "the viewer's bundle has")
    hits = search(index, answer.query, SHOWN, where=[Condition("region", "=", (region,))])
    st.caption(plain(f"Fitting these words best, of {hits.n_searched} cases of the {spoken(region)}"))
    for hit in hits.hits:
        present = ", ".join(key.replace("_", " ") for key, value in hit.entry.findings.items() if value == 1)
        st.text(f"{hit.entry.patient or hit.entry.id}: {present or 'nothing reported'}")


def _present(study: Study, region: str) -> str:
    found = [f.label or spoken(f.finding) for f in study.findings if f.region == region and f.verdict == "present"]
    return ", ".join(found) or "nothing present"
