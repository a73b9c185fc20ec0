"""Entry script of `streamlit run`: the page of `pair_page.py` with the viewer's own routes beside it."""

import sys
from pathlib import Path

import streamlit as st

from medvl_ui.station import open_station
from medvl_ui.transport import routes

open_station(Path(sys.argv[1]))
app = st.App(Path(__file__).with_name("pair_page.py"), routes=routes())
