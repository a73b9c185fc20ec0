"""Files of what was decided about a study, for the reader to keep: JSON, PDF, and a DICOM report of a signed study."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from medvl.errors import MedvlError
from medvl.review.record import MAY_VERIFY, Status

from .deciding import Seen
from .extras import extras
from .wording import plain

if TYPE_CHECKING:
    from medvl.text.prompts import FindingList


def show_exports(seen: Seen) -> None:
    """Draw the buttons."""
    case, review = seen.case, seen.review
    with st.popover("Export", width="stretch"):
        st.caption("Holds the comments and reviewers' names." if review.decisions else "Nothing is decided yet.")
        for kind, label, mime in (("json", "JSON", "application/json"), ("pdf", "PDF", "application/pdf")):
            st.download_button(
                label,
                data=_maker(seen, kind),
                file_name=f"review-{case}.{kind}",
                mime=mime,
                key=seen.key(kind),
                on_click="ignore",
            )
        _dicom(seen)


def _maker(seen: Seen, kind: str, organisation: str = "") -> Callable[[], bytes]:
    """Makes the file when it is asked for; what it is made with is loaded only then."""

    def make() -> bytes:
        from medvl.review.export import export

        findings = _asked_list(seen) if kind == "sr" else None
        return export(seen.desk, seen.case, kind, seen.who, organisation=organisation, findings=findings)

    return make


def _asked_list(seen: Seen) -> FindingList | None:
    """The findings list of the bundle that answered, for its codes; None where the viewer was given another one or none."""
    from medvl.text.prompts import load_findings

    bundle = extras().opened_bundle
    if bundle is None or bundle.sha256 != seen.review.answers.bundle_sha256:
        return None
    return load_findings(bundle.text("findings.yaml"))


def _dicom(seen: Seen) -> None:
    """The DICOM report is made first and offered then: it may turn out that it cannot be made."""
    if seen.review.status != Status.signed:
        st.caption("The DICOM report is made of signed studies.")
        return
    if extras().bundle is None and extras().opened_bundle is None:
        st.caption("With --bundle NAME the report carries the codes of the findings list; without it, medvl's own.")
    organisation = ""
    if seen.review.role in MAY_VERIFY:
        organisation = st.text_input("Organisation, for a verified report", key=seen.key("organisation"), max_chars=64)
    if st.button("Make the DICOM report", key=seen.key("sr")):
        try:
            made = _maker(seen, "sr", organisation)()
        except MedvlError as error:
            st.warning(plain(str(error)))
        else:
            st.download_button("Save the DICOM report", made, f"review-{seen.case}.dcm", "application/dicom", on_click="ignore")
