"""The report draft: a sentence for what each verdict says, linked to its finding, for a person to edit. Never a report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from medvl.errors import MedvlError
from medvl.review.record import Who

from .extras import extras
from .focus import look_at
from .results import study_file
from .station import station
from .study import FindingRecord, Study
from .wording import plain, score_text, spoken
from .writing import show_editor

if TYPE_CHECKING:
    from medvl.heads.drafts import DraftSentence

NOTICE = "Draft, not final. Written by software for research; nothing here is a report until a person signs one."


@dataclass(frozen=True)
class Line:
    """One sentence, the findings it rests on, and whether the verdicts bear it out."""

    text: str
    findings: tuple[FindingRecord, ...]
    region: str
    supported: bool


def show_draft(study: Study, who: Who | None = None) -> None:
    """Draw the pane, or say why there is no draft; who may decide can edit it, and what they wrote is kept with the review."""
    st.warning(NOTICE, icon=":material/edit_note:")
    lines: tuple[Line, ...] = ()
    try:
        with st.spinner("Writing the draft"):
            lines = draft_lines(study)
        if not lines:
            st.info("No verdict was given in this study, so there is nothing to draft from.")
    except MedvlError as error:
        st.info(plain(str(error)))
    if lines:
        st.caption("Each sentence with what it rests on. A click leads to the finding and its place in the image.")
    for number, line in enumerate(lines):
        _sentence(number, line)
    if who is not None:
        show_editor(study, who, as_text(lines))


def draft_lines(study: Study) -> tuple[Line, ...]:
    """Sentences from the verdicts of the study's record, in the bundle's words.

    Raises:
        ConfigError: no bundle was given, or it is not the one of this result.
        BundleError: the bundle's files are missing or altered.
    """
    from medvl.errors import ConfigError
    from medvl.heads.draft_compose import grounded_draft
    from medvl.heads.draft_verdicts import verdicts_of_record
    from medvl.text.prompts import load_findings

    bundle = extras().opened_bundle
    if bundle is None:
        raise ConfigError("Start the viewer with --bundle NAME: the draft takes its words from the bundle of the result.")
    if bundle.sha256 != study.bundle.sha256:
        raise ConfigError("The viewer was started with another bundle than the one of this result; give that one for a draft.")
    path = study_file(station().root, study.case_id, "findings.json")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    known = load_findings(bundle.text("findings.yaml"))
    own = {f.key for f in known.findings}
    record["findings"] = [row for row in record["findings"] if row["finding"] in own]
    return tuple(_line(sentence, study) for sentence in grounded_draft(verdicts_of_record(record, known)))


def _line(sentence: DraftSentence, study: Study) -> Line:
    rests = tuple(f for f in study.findings if f.region == sentence.region and f.finding in sentence.findings)
    return Line(sentence.text, rests, sentence.region, sentence.supported)


def as_text(lines: tuple[Line, ...]) -> str:
    """The draft as a paragraph a region."""
    regions: dict[str, list[str]] = {}
    for line in lines:
        regions.setdefault(line.region, []).append(line.text)
    return "\n\n".join(f"{spoken(region).capitalize()}: {' '.join(texts)}" for region, texts in regions.items())


def _sentence(number: int, line: Line) -> None:
    told, link = st.columns([3, 1], vertical_alignment="center")
    told.text(line.text + ("" if line.supported else " [not borne out by the verdicts]"))
    if not line.findings:
        return
    first = max(line.findings, key=lambda f: (f.peak_lps is not None, f.score or 0.0))
    help_text = ", ".join(f"{f.label or f.finding}: {score_text(f)}, {f.verdict}" for f in line.findings)
    link.button("Evidence", key=f"draft_{number}", help=plain(help_text), on_click=look_at, args=(first.key,))
