"""Entry script of the page: Streamlit runs this file anew at every interaction."""

from __future__ import annotations

from medvl_ui.page import draw

draw()
