"""The reading column alone, for tests of its panes: findings list and details of the first study."""

import streamlit as st

from medvl.review.record import Person
from medvl_ui.details import show_details
from medvl_ui.findings import choose_finding
from medvl_ui.results import read_study, study_folders
from medvl_ui.station import station

st.set_page_config(page_title="readings", layout="wide")
study = read_study(station().root, st.session_state.get("case") or study_folders(station().root)[0].name)
who = Person(st.session_state.get("who", "Anna Roth"), st.session_state.get("role", "reviewer"))
show_details(study, choose_finding(study) if study.status == "done" else None, who)
