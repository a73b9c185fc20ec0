"""Similar studies of the same results folder, which can be laid beside the one being read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import streamlit as st

from medvl.errors import MedvlError
from medvl.retrieval.search import NEAR

from .embeddings import Vectors, read_vectors
from .likeness import likeness
from .results import read_study, study_folders
from .station import station
from .study import Study
from .wording import plain, spoken

SHOWN = 6


@dataclass(frozen=True)
class Fellow:
    """Another study of this folder, and its cosine."""

    study: Study
    score: float


def fellows(root: Path, study: Study, vectors: Vectors, region: str) -> tuple[list[Fellow], int, int]:
    """Studies of this folder by similarity of a region, how many were compared, and how many left out as the same images."""
    query, found, same = vectors.by_region[region], [], 0
    for folder in study_folders(root):
        if folder.name == study.case_id or not (folder / "embeddings.safetensors").is_file():
            continue
        other, there = read_study(root, folder.name), _vectors_of(folder, (folder / "embeddings.safetensors").stat().st_mtime_ns)
        vector = None if there is None else there.by_region.get(region)
        if there is None or vector is None or there.model_sha256 != vectors.model_sha256 or vector.shape != query.shape:
            continue
        score = float(vector @ query)
        if score > NEAR or (study.pixels_sha256 and other.pixels_sha256 == study.pixels_sha256):
            same += 1
        else:
            found.append(Fellow(other, score))
    found.sort(key=lambda fellow: -fellow.score)
    return found[:SHOWN], len(found), same


@lru_cache(maxsize=20_000)
def _vectors_of(folder: Path, mtime_ns: int) -> Vectors | None:
    del mtime_ns  # part of the cache key
    try:
        return read_vectors(folder.parent.parent, folder.name)
    except MedvlError:
        return None


def show_fellows(study: Study, vectors: Vectors, region: str) -> None:
    """Draw the list; a click lays another study beside this one."""
    found, n, same = fellows(station().root, study, vectors, region)
    if not found:
        st.info(f"No other study of this folder holds an embedding of the {spoken(region)} by the same bundle.")
        return
    left = f" {same} with the same images left out." if same else ""
    st.caption(f"{n} studies compared.{left} They may be other studies of the same patient: results hold no patient number.")
    for fellow in found:
        with st.container(border=True):
            st.markdown(f"**{fellow.score:.3f}**  {plain(fellow.study.case_id)}")
            theirs = {
                f.finding: int(f.verdict == "present")
                for f in fellow.study.findings
                if f.region == region and f.verdict != "undecided"
            }
            for line in likeness(study, region, theirs):
                st.text(line)
            drawn = st.session_state.get("beside") == (study.case_id, fellow.study.case_id, region)
            st.button(
                "Close" if drawn else "Side by side",
                key=f"beside_{fellow.study.case_id}",
                on_click=_beside,
                args=(None if drawn else (study.case_id, fellow.study.case_id, region),),
            )


def beside(study: Study) -> tuple[Study, str] | None:
    """The study to lay beside this one, and the region in which they are alike; None when none was asked for."""
    asked = st.session_state.get("beside")
    if asked is None or asked[0] != study.case_id:
        return None
    other = read_study(station().root, asked[1])
    return (other, asked[2]) if other.status == "done" else None


def _beside(pair: tuple[str, str, str] | None) -> None:
    st.session_state["beside"] = pair
