"""Prompt lab: a finding in the reader's own words, asked of one region; a margin without calibration, and its nearest cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from medvl.errors import MedvlError

from .embeddings import other_bundle, read_vectors
from .extras import extras
from .station import station
from .study import FindingRecord, Study
from .wording import plain, spoken

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CHARACTERS, WAIT_S, SHOWN = 200, 20.0, 5
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


def show_lab(study: Study, finding: FindingRecord | None) -> None:
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
    regions = list(vectors.by_region)
    first = regions.index(finding.region) if finding and finding.region in regions else 0
    with st.form("lab", border=False):
        text = st.text_input("Finding", key="lab_text", max_chars=MOST_CHARACTERS, placeholder="a stone in the left kidney")
        denied = st.text_input(
            "Against (optional)", key="lab_denied", max_chars=MOST_CHARACTERS, placeholder="made from the finding when left empty"
        )
        region = st.selectbox("Region", regions, index=first, format_func=spoken, key=f"lab_region_{study.case_id}")
        asked = st.form_submit_button("Ask")
    kept: dict[str, tuple[Answer, str, str, str]] = st.session_state.setdefault("lab_answers", {})
    try:
        if asked and text.strip():
            kept.pop(study.case_id, None)
            with st.spinner("Asking the model; the first question loads it"):
                answer = ask(text.strip(), denied.strip(), vectors.by_region[region])
            kept[study.case_id] = answer, text.strip(), denied.strip(), region
        if study.case_id in kept:
            _told(*kept[study.case_id])
    except MedvlError as error:
        st.info(plain(str(error)))


def ask(text: str, denied: str, vector: NDArray[np.float32]) -> Answer:
    """The margin of a text in a region; one question at a time in this process.

    Raises:
        ConfigError: others ask for too long, or the bundle reads no free text.
        BundleError: the bundle's files are missing or altered.
    """
    from medvl.errors import ConfigError
    from medvl.heads.free_text import query_of

    lock = extras().lock
    if not lock.acquire(timeout=WAIT_S):
        raise ConfigError("Others are asking the model just now. Try again in a moment.")
    try:
        model = extras().predictor
        if model is None:
            raise ConfigError("No bundle was given to this viewer.")
        if denied:
            pair = model.embed_texts([text, denied]).double().numpy()
            query, against = pair[0] - pair[1], "yours"
        else:
            made, twin = query_of(text, model.embed_texts)
            query, against = made.double().numpy(), "derived" if twin else ""
    finally:
        lock.release()
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


def _told(answer: Answer, text: str, denied: str, region: str) -> None:
    st.markdown(f"**{plain(text)}**, {plain(spoken(region))}")
    st.metric("Margin, uncalibrated", f"{answer.margin:+.3f}")
    how = {
        "yours": f"against: {denied}",
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
    st.text("A heat map of a free prompt is not drawn here: results keep no image features.")
    _nearest(answer, region)


def _nearest(answer: Answer, region: str) -> None:
    from medvl.retrieval.entry import Space
    from medvl.retrieval.filters import Condition
    from medvl.retrieval.search import search

    if extras().index is None and extras().opened_index is None:
        st.caption("With --index DIR, the cases that fit these words best are shown here.")
        return
    index, bundle = extras().opened_index, extras().opened_bundle
    if index is None or bundle is None:
        return
    index.space.must_be(Space(bundle.name, bundle.sha256, bundle.contract.hash, len(answer.query)), "the viewer's bundle has")
    found = search(index, answer.query, SHOWN, where=[Condition("region", "=", (region,))])
    st.caption(f"Fitting these words best, of {found.n_searched} cases of the {spoken(region)}")
    for hit in found.hits:
        present = ", ".join(key.replace("_", " ") for key, value in hit.entry.findings.items() if value == 1)
        st.text(f"{hit.entry.patient or hit.entry.id}: {present or 'nothing reported'}")
