"""Entry script of `streamlit run RESULTS`: Streamlit's page with the viewer's own routes beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

from medvl_ui.extras import open_extras, parsed, warm
from medvl_ui.station import open_station
from medvl_ui.transport import routes

open_station(Path(sys.argv[1]))
warm(open_extras(parsed(sys.argv[2:])))
app = st.App(Path(__file__).with_name("viewer_page.py"), routes=routes())
