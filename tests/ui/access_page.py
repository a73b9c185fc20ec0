"""A page that tells who is at work and what functions let them do, for the tests of access."""

import streamlit as st

from medvl_ui import admin, signing
from medvl_ui.access import NotAllowedError, require
from medvl_ui.accounts import Role

user = signing.admit()
signing.show_user(user)
st.text(f"{user.name} {user.role}")
for role in Role:
    try:
        require(role)
    except NotAllowedError:
        st.text(f"{role}: False")
    else:
        st.text(f"{role}: True")
if signing.administration_open():
    admin.show()
