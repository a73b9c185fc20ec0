"""Similar studies of the same results folder, which can be laid beside the one being read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from medvl.errors import MedvlError
from medvl.retrieval.search import NEAR

from .embeddings import Vectors, read_vectors
from .likeness import contributions, cosines, likeness, show_where
from .neighbours import MARK, is_neighbour, neighbour
from .results import read_study, study_folders
from .station import station
from .study import Study
from .wording import plain, spoken

SHOWN = 6


@dataclass(frozen=True, eq=False)
class Fellow:
    """Another study of this folder, its cosine, and its vectors."""

    study: Study
    score: float
    vectors: Vectors


@dataclass(frozen=True, eq=False)
class Compared:
    """What a comparison found.

    Args:
        best: the most alike, in order.
        n: how many were compared.
        same_images: how many were left out as the same images; same_patient: as of the same patient.
        untold: whether the patient of this study is not known.
    """

    best: list[Fellow]
    n: int
    same_images: int
    same_patient: int
    untold: bool


def fellows(root: Path, study: Study, vectors: Vectors, region: str) -> Compared:
    """Studies of other patients in this folder, by similarity of a region."""
    query, found, images, person = vectors.by_region[region], list[Fellow](), 0, 0
    for other, there in _others(root, study, vectors, region):
        score = float(there.by_region[region] @ query)
        if score > NEAR or (study.pixels_sha256 and other.pixels_sha256 == study.pixels_sha256):
            images += 1
        elif patient_of(study) is not None and patient_of(other) == patient_of(study):
            person += 1
        else:
            found.append(Fellow(other, score, there))
    found.sort(key=lambda fellow: -fellow.score)
    return Compared(found[:SHOWN], len(found), images, person, patient_of(study) is None)


def fitting(root: Path, study: Study, vectors: Vectors, region: str, query: NDArray[np.float64]) -> tuple[list[Fellow], int]:
    """Other studies of this folder by how well a region fits a direction (E,), and how many were compared."""
    found = [
        Fellow(other, float(there.by_region[region] @ query), there) for other, there in _others(root, study, vectors, region)
    ]
    return sorted(found, key=lambda fellow: -fellow.score)[:SHOWN], len(found)


def patient_of(study: Study) -> str | None:
    """The keyed hash that stands for a patient in this folder; None where the result does not tell."""
    return study.series.patient if study.series else None


def _others(root: Path, study: Study, vectors: Vectors, region: str) -> Iterator[tuple[Study, Vectors]]:
    """Other studies of the folder that hold a vector of the region by the same bundle."""
    for folder in study_folders(root):
        if folder.name == study.case_id or not (folder / "embeddings.safetensors").is_file():
            continue
        other, there = read_study(root, folder.name), _vectors_of(folder, (folder / "embeddings.safetensors").stat().st_mtime_ns)
        vector = None if there is None else there.by_region.get(region)
        if there is None or vector is None or there.model_sha256 != vectors.model_sha256:
            continue
        if vector.shape == vectors.by_region[region].shape:
            yield other, there


@lru_cache(maxsize=20_000)
def _vectors_of(folder: Path, mtime_ns: int) -> Vectors | None:
    del mtime_ns  # part of the cache key
    try:
        return read_vectors(folder.parent.parent, folder.name)
    except MedvlError:
        return None


def show_fellows(study: Study, vectors: Vectors, region: str) -> None:
    """Draw the list; a click lays another study beside this one."""
    found = fellows(station().root, study, vectors, region)
    if not found.best:
        told = _left_out(found)
        st.info(plain(f"No other study of this folder holds an embedding of the {spoken(region)} by the same bundle.{told}"))
        return
    st.caption(f"{found.n} {'study' if found.n == 1 else 'studies'} compared.{_left_out(found)}")
    for fellow in found.best:
        with st.container(border=True):
            _fellow(study, vectors, region, fellow)


def _left_out(found: Compared) -> str:
    images = f" {found.same_images} with the same images left out." if found.same_images else ""
    person = f" {found.same_patient} of the same patient left out." if found.same_patient else ""
    unknown = " They may be other studies of the same patient: this result tells no patient number." if found.untold else ""
    return images + person + unknown


def _fellow(study: Study, vectors: Vectors, region: str, fellow: Fellow) -> None:
    other = fellow.study
    st.markdown(f"**{fellow.score:.3f}**  {plain(other.case_id)}")
    decided = (f for f in other.findings if f.region == region and f.verdict != "undecided")
    for line in likeness(study, region, {f.finding: int(f.verdict == "present") for f in decided}):
        st.text(line)
    if told := contributions(cosines(vectors.by_region, fellow.vectors.by_region)):
        st.caption(plain(told))
    with st.container(horizontal=True, gap="xsmall"):
        beside_button(study, other, region, other.case_id)
        show_where(study, vectors, region, other.case_id, fellow.vectors.by_region[region])


def beside(study: Study) -> tuple[Study, str] | None:
    """The study to lay beside this one, and the region in which they are alike; None when none was asked for."""
    asked = st.session_state.get("beside")
    if asked is None or asked[0] != study.case_id:
        return None
    other = neighbour(asked[1].removeprefix(MARK)) if is_neighbour(asked[1]) else read_study(station().root, asked[1])
    return (other, asked[2]) if other is not None and other.status == "done" else None


def beside_button(study: Study, other: Study, region: str, key: str) -> None:
    """A button that lays another study beside this one, or takes it away again."""
    drawn = st.session_state.get("beside") == (study.case_id, other.case_id, region)
    args = (None if drawn else (study.case_id, other.case_id, region),)
    st.button("Close" if drawn else "Side by side", key=f"beside_{key}", on_click=_beside, args=args)


def _beside(pair: tuple[str, str, str] | None) -> None:
    st.session_state["beside"] = pair
