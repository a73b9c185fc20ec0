"""A page of the sign-off pane alone, for tests: `streamlit run` or AppTest, with who is signed in from the environment."""

import os
from pathlib import Path

import streamlit as st

from medvl.review.record import Person
from medvl_ui.results import read_study
from medvl_ui.signoff import show
from medvl_ui.station import open_station, station
from medvl_ui.transport import STATIC
from medvl_ui.watching import watch

st.set_page_config(layout="wide")
st.html(f"<style>{(STATIC / 'page.css').read_text(encoding='utf-8')}</style>")
if os.environ.get("SIGNOFF_RESULTS"):
    open_station(Path(os.environ["SIGNOFF_RESULTS"]))
who = Person(st.session_state.get("who", "Anna Roth"), st.session_state.get("role", "reviewer"))
study = read_study(station().root, st.session_state.get("case", "a1b2c3d4e5f6"))
finding = next((f for f in study.findings if f.key == st.session_state.get("finding")), None)
watch(study, finding, who)
_, pane = st.columns([3, 1])
with pane:
    show(study, who)
