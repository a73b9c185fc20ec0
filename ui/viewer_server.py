"""Entry script of `streamlit run RESULTS`: Streamlit's page with the viewer's own routes beside it, behind the gate."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from medvl_ui import access, extras, sign_in, transport, worklist
from medvl_ui.accounts import Role
from medvl_ui.gate import Gate
from medvl_ui.station import open_station

open_station(Path(sys.argv[1]))
access.open_access(access.parsed(sys.argv[2:]))
extras.warm(extras.open_extras(replace(extras.parsed(sys.argv[2:]), reviews=lambda: access.may(Role.reviewer))))
threading.Thread(target=worklist.rows, name="worklist", daemon=True).start()
page = Path(__file__).with_name("viewer_page.py")
app = st.App(page, routes=[*transport.routes(), *sign_in.routes()], middleware=[Middleware(Gate)])
