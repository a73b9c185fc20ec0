"""A page with the worklist alone, for its tests."""

import streamlit as st

from medvl_ui import worklist

with st.sidebar:
    study = worklist.choose()
st.text(f"{study.case_id} {study.status}" if study else "none")
if worklist.table_open():
    worklist.show_table()
