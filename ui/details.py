"""What a verdict rests on: score, doubts, deletion test, prompts; beside it the other panes and what is known of the study."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from medvl.review.record import Who

from .charts import deletion_bars, score_strip
from .drafting import show_draft
from .evidence_words import deletion_words, doubts, interval_text, percentile_text, scanner_facts, spread_text
from .prognosis import show_prognosis
from .prompt_lab import show_lab
from .signoff import show as show_sign_off
from .similar import show_similar
from .study import FindingRecord, ReasonRecord, RegionRecord, SeriesRecord, Study
from .volume_view import evidence_problem
from .wording import (
    BADGES,
    CALIBRATION,
    finding_name,
    plain,
    reason_lines,
    region_facts,
    series_facts,
    spoken,
    why,
)


def show_details(study: Study, finding: FindingRecord | None, who: Who | None = None) -> None:
    """Tabs: the finding in focus, and the study's regions, series and model; the other panes only when they are open.

    Args:
        study: the study on the page.
        finding: in focus.
        who: is at work, to sign off; nobody can without.
    """
    drawers = {"Study": lambda: _about(study)}
    if study.findings:
        drawers = {"Finding": lambda: _finding(study, finding)} | drawers
    lazy: dict[str, Callable[[], None]] = {}
    if who is not None and study.status != "unreadable":
        lazy["Sign-off"] = lambda: show_sign_off(study, who)
    if study.status == "done":
        lazy |= {
            "Similar": lambda: show_similar(study, finding, who),
            "Prognosis": lambda: show_prognosis(study),
            "Draft": lambda: show_draft(study, who),
            "Prompts": lambda: show_lab(study, finding, who),
        }
    names = [*(name for name in drawers if name != "Study"), *lazy, "Study"]
    for name, tab in zip(names, st.tabs(names, key="pane", on_change="rerun"), strict=True):
        with tab:
            if name in drawers:
                drawers[name]()
            elif tab.open:
                lazy[name]()


def _finding(study: Study, finding: FindingRecord | None) -> None:
    if finding is None:
        st.caption("No finding is in focus. Choose one in the list.")
        return
    region = next((r for r in study.regions if r.name == finding.region), None)
    st.markdown(f"**{plain(finding_name(finding))}**, {plain(spoken(finding.region))} {BADGES[finding.verdict]}")
    st.text(why(finding))
    _score(finding)
    _doubts(finding, region)
    st.caption("Evidence")
    problem = evidence_problem(study, finding)
    if problem:
        st.text(problem)
    if finding.deletion is not None or not problem:
        st.text(deletion_words(finding.deletion))
    if finding.deletion is not None:
        st.altair_chart(deletion_bars(finding.deletion), width="stretch")
    present, absent = st.columns(2)
    with present:
        _prompts("Asked: present", finding.prompts.present)
    with absent:
        _prompts("Against: absent", finding.prompts.absent)


def _score(finding: FindingRecord) -> None:
    if finding.score is None:
        if finding.margin is not None:
            st.text(f"Margin {finding.margin:+.2f}, which is no probability. {percentile_text(finding)}")
        return
    chart = score_strip(finding)
    if chart is not None:
        st.altair_chart(chart, width="stretch")
        st.caption("White: score. Blue: 95 % interval. Orange: other wordings. Grey: undecided. Line: threshold.")
    st.text(CALIBRATION[finding.calibrated])
    for line in (interval_text(finding), spread_text(finding), percentile_text(finding)):
        st.text(line)


def _doubts(finding: FindingRecord, region: RegionRecord | None) -> None:
    found = doubts(finding, region)
    st.caption("Why not certain")
    for title, told in found:
        st.markdown(f"**{plain(title)}.** {plain(told)}")
    if not found:
        st.text("Nothing on record speaks against this verdict. The score itself is no certainty.")


def _prompts(title: str, prompts: tuple[str, ...]) -> None:
    st.caption(title)
    for prompt in prompts or ("None: this finding is not asked by sentences.",):
        st.text(prompt)


def _about(study: Study) -> None:
    _regions(study)
    _series(study)


def _regions(study: Study) -> None:
    if not study.regions:
        st.caption("No regions were recorded.")
    for region in study.regions:
        st.markdown(f"**{plain(spoken(region.name).capitalize())}**")
        st.text(region_facts(region))
        _reasons(region.reasons)


def _series(study: Study) -> None:
    st.caption("Series")
    if study.series is None:
        st.text("No series was used.")
    else:
        _geometry(study.series)
    _model(study)


def _geometry(series: SeriesRecord) -> None:
    st.text(series_facts(series) or "Nothing was recorded.")
    if series.verdict:
        st.text("Geometry: sound, read as one volume." if series.verdict == "volume" else f"Geometry: {series.verdict}.")
    if series.facts:
        st.text(scanner_facts(series))
    if series.why:
        st.text(f"Why this series: {series.why}")
    _reasons(series.reasons)


def _model(study: Study) -> None:
    st.caption("Model")
    bundle = study.bundle
    st.text(f"Bundle {bundle.name or 'not recorded'}" + (f", SHA-256 {bundle.sha256[:16]}" if bundle.sha256 else ""))
    made = f", {study.made_at.replace('T', ' ')}" if study.made_at else ""
    st.text(f"Written by {study.software or 'an unnamed version'}{made}")


def _reasons(reasons: tuple[ReasonRecord, ...]) -> None:
    for line in reason_lines(reasons):
        st.text(f"• {line}")
