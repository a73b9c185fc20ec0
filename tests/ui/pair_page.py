"""Two studies of a results folder beside each other, for the tests; served by `pair_server.py`."""

import streamlit as st

from medvl_ui import volume_view
from medvl_ui.results import read_study, study_folders
from medvl_ui.station import station


def draw() -> None:
    """The first two readable studies, each anchored at its finding."""
    st.set_page_config(layout="wide")
    left, right = (
        volume_view.Side(
            f"Case <b>{study.case_id}</b>",
            study,
            station().picture(study.case_id, "image"),
            study.findings[0],
            anchor_lps=study.findings[0].peak_lps,
        )
        for study in (read_study(station().root, folder.name) for folder in study_folders(station().root)[:2])
    )
    volume_view.show_pair(left, right, jump=str(st.session_state.get("jumps", 0)))


draw()
