"""Similar cases: nearest regions in an index, less the same patient's, or in this folder, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from medvl.errors import MedvlError
from medvl.review.record import Who

from . import watching
from .charts import observed
from .embeddings import Vectors, read_vectors
from .extras import extras
from .fellows import beside_button, patient_of, show_fellows
from .likeness import contributions, likeness, show_note, show_where
from .neighbours import neighbour
from .station import station
from .study import FindingRecord, Study
from .wording import plain, reason_lines, spoken

if TYPE_CHECKING:
    from medvl.retrieval.entry import Entry, Hit
    from medvl.retrieval.outside import Neighbours
    from medvl.retrieval.people import People
    from medvl.retrieval.store import Index

SHOWN, FOLLOWED = 6, (20, 50, 100)
_LONGEST = 1500


class Alike(NamedTuple):
    """A region of another case: its cosine with this study's, and its unit vector (E,)."""

    cosine: float
    vector: NDArray[np.float64]


def show_similar(study: Study, finding: FindingRecord | None, who: Who | None = None) -> None:
    """Draw the pane, or say what is missing for it."""
    try:
        vectors = read_vectors(station().root, study.case_id)
    except MedvlError as error:
        st.info(plain(str(error)))
        return
    regions = list(vectors.by_region)
    first = regions.index(finding.region) if finding and finding.region in regions else 0
    region = st.selectbox(
        "Region", regions, index=first, format_func=spoken, key=f"similar_{study.case_id}_{finding and finding.key}"
    )
    if who is not None:
        watching.looked(study.case_id, who, "similar cases viewed", region=region)
    show_note()
    doubts = [line for r in study.regions if r.name == region for line in reason_lines(r.reasons)]
    for line in doubts:
        st.warning(plain(line))
    where = st.segmented_control(
        "Among", ["Index", "This folder"], default="Index" if extras().index else "This folder", key="among"
    )
    if where == "This folder":
        show_fellows(study, vectors, region)
    else:
        _show_index(study, vectors, region)


def _show_index(study: Study, vectors: Vectors, region: str) -> None:
    if extras().index is None:
        st.info("No index was given. Build one with `medvl index build` and start the viewer with --index DIR.")
        return
    gone = st.session_state.setdefault(f"same_{study.case_id}", [])
    try:
        with st.spinner("Comparing with the index"):
            index = extras().opened_index
            if index is None:
                return
            known = same_patient(index, study)
            found = nearest(index, vectors, region, [*known.same, *gone], max(FOLLOWED))
            alike = regions_alike(index, vectors, found.hits[:SHOWN])
    except MedvlError as error:
        st.warning(plain(str(error)))
        return
    if not found.hits:
        st.info(plain(f"The index holds no other case of the {spoken(region)}."))
        return
    st.caption(plain(_excluded(found, known, gone)))
    if why := untold(study, known):
        st.warning(plain(f"Which of these cases are of this patient cannot be told: {why}. Mark a case below if it is."))
    for hit in found.hits[:SHOWN]:
        _neighbour(study, vectors, region, hit, alike[hit.entry.id], gone)
    if extras().dataset is not None and not any(neighbour(hit.entry.study) for hit in found.hits[:SHOWN]):
        st.caption(
            "The dataset of this viewer holds no images of these cases: the index comes from another one, or an older medvl."
        )
    if any(hit.entry.report for hit in found.hits[:SHOWN]) and not extras().may_show_text():
        st.caption("Reports are withheld: they are shown to reviewers of a viewer that was started with --show-text.")
    _outcomes([hit.entry for hit in found.hits])


def nearest(index: Index, vectors: Vectors, region: str, gone: list[str], k: int) -> Neighbours:
    """The k nearest cases of the same region, none of the patients in `gone` nor of the same images.

    Raises:
        ConfigError: the index was made by another bundle.
    """
    from medvl.retrieval.entry import Space
    from medvl.retrieval.filters import Condition
    from medvl.retrieval.outside import neighbours_of

    vector = vectors.by_region[region]
    made = Space("of this study", vectors.model_sha256, vectors.contract_hash, len(vector))
    index.space.must_be(made, "this study has")
    return neighbours_of(index, vector, k, where=[Condition("region", "=", (region,))], without=gone)


def same_patient(index: Index, study: Study) -> People:
    """Who of the index is this patient: by links of the site's key, and by the folder's key where the index has open names."""
    from medvl.data.identity import folder_key, patient_id
    from medvl.retrieval.people import people_of

    told, key_file = patient_of(study), station().root / "key"
    person = (study.series and study.series.person) or ""
    with index.reading() as view:
        slot, made = f"people_{study.case_id}", (str(index.folder), view.version, person, told)
        if (kept := st.session_state.get(slot)) is not None and kept[0] == made:
            return kept[1]  # type: ignore[no-any-return]
        known = people_of(view, person)
        if told is not None and key_file.is_file():
            key = folder_key(key_file)
            named = [number for number in view.columns.text("patient")[1] if patient_id(key, number) == told]
            known = replace(known, same=tuple(dict.fromkeys((*known.same, *named))))
    st.session_state[slot] = made, known
    return known


def untold(study: Study, known: People) -> str:
    """Why it cannot be told of every case whether it is of this patient; empty where it can."""
    from medvl.data.person import Likeness, numbered

    person = study.series.person if study.series else None
    if not known.untold:
        return ""
    if not person:
        return "this result was made without a patient key (medvl infer --patient-key FILE)"
    if not numbered(person):
        return "the images of this study tell no patient number"
    words = {
        Likeness.no_link: "were ingested or embedded without a patient key",
        Likeness.other_key: "were ingested or embedded with another patient key than this result's",
        Likeness.no_number: "came without a patient number",
    }
    return "; ".join(f"{n} of {known.n} patients of the index {words[why]}" for why, n in known.untold.items())


def regions_alike(index: Index, vectors: Vectors, hits: Sequence[Hit]) -> dict[str, dict[str, Alike]]:
    """By case found: cosine and vector (E,) of every region of that study that the index also holds."""
    with index.reading() as view:
        images = view.matrices["image"]
        out: dict[str, dict[str, Alike]] = {}
        for hit in hits:
            own = [int(row) for row in view.rows_where("patient", hit.entry.patient)] if hit.entry.patient else []
            found: dict[str, Alike] = {}
            for row, entry in view.entries(own or [view.row_of(hit.entry.id)]).items():
                vector = images.rows(np.array([row]))[0].astype(np.float64)
                if entry.study == hit.entry.study and entry.region in vectors.by_region and vector.any():
                    unit = vector / np.linalg.norm(vector)
                    found[entry.region] = Alike(float(vectors.by_region[entry.region] @ unit), unit)
            out[hit.entry.id] = dict(sorted(found.items(), key=lambda pair: -pair[1].cosine))
    return out


def _excluded(found: Neighbours, known: People, gone: list[str]) -> str:
    whose = "" if known.untold else " of patients with other numbers"
    cases = "case" if found.n_searched == 1 else "cases"
    told = [f"{found.n_searched} {cases}{whose} compared, all exactly; similarity is a cosine, no probability."]
    if found.same:
        told.append("One patient with the same images was left out." if len(found.same) == 1 else "Same images were left out.")
    if known.same:
        told.append("This patient's other cases were left out, by the patient number.")
    return " ".join([*told, *([f"{len(gone)} left out by you."] if gone else [])])


def _neighbour(study: Study, vectors: Vectors, region: str, hit: Hit, alike: Mapping[str, Alike], gone: list[str]) -> None:
    entry = hit.entry
    with st.container(border=True):
        known = [
            spoken(entry.region),
            entry.sex,
            f"{entry.age_years:.0f} years" if entry.age_years is not None else "",
            entry.phase,
        ]
        st.markdown(
            f"**{hit.score:.3f}**  {plain(entry.patient or entry.id)} :small[:gray[{plain(', '.join(k for k in known if k))}]]"
        )
        for line in likeness(study, region, entry.findings):
            st.text(line)
        if parts := contributions({name: each.cosine for name, each in alike.items()}):
            st.caption(plain(parts))
        if told := outcome_text(entry):
            st.caption(told)
        if entry.report and extras().may_show_text():
            with st.expander("Report"):
                st.text(entry.report[:_LONGEST])
        buttons, imaged = st.container(horizontal=True, gap="xsmall"), neighbour(entry.study)
        with buttons:
            if imaged is not None:
                beside_button(study, imaged, region, entry.id)
            if region in alike:
                show_where(study, vectors, region, entry.patient or entry.id, alike[region].vector)
        if entry.patient:
            buttons.button(
                "Same patient", key=f"same_{entry.id}", on_click=gone.append, args=(entry.patient,), help="Leave this patient out"
            )


def outcome_text(entry: Entry) -> str:
    """What became of the patient, where the index knows."""
    followed = _outcome(entry)
    if followed is None:
        return ""
    days, event = followed
    return f"{'Event after' if event else 'Followed without event for'} {days / 365.25:.1f} years"


def _outcome(entry: Entry) -> tuple[float, bool] | None:
    days, event = entry.extra.get("time_days"), entry.extra.get("event")
    if not isinstance(days, int | float) or not isinstance(event, int | float) or not days >= 0:
        return None
    return float(days), bool(event)


def _outcomes(entries: list[Entry]) -> None:
    """Kaplan-Meier of the neighbours, one row a patient."""
    from medvl.survival.curves import curve

    people: dict[str, tuple[float, bool]] = {}
    for entry in entries:
        followed = _outcome(entry)
        if followed is not None:
            people.setdefault(entry.patient or entry.id, followed)
    st.caption("What became of them")
    if not people:
        st.text("The index carries no outcomes (time_days and event), so there is no survival curve.")
        return
    sizes = [n for n in FOLLOWED if n < len(people)] or [len(people)]
    n = st.select_slider("Nearest patients", sizes, value=sizes[-1], key="followed") if len(sizes) > 1 else sizes[0]
    chosen = list(people.values())[:n]
    found = curve([max(days, 0.5) for days, _ in chosen], [event for _, event in chosen])
    st.altair_chart(observed({f"{found.n} nearest, {found.n_events} events": found}), width="stretch")
    median = "not reached" if not np.isfinite(found.median) else f"{found.median / 365.25:.1f} years"
    st.caption(f"Kaplan-Meier with 95 % interval (log-log); median {median}. It describes these, and predicts nothing.")
