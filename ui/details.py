"""What a verdict rests on: prompts, thresholds and deletion test; and the study's regions, series and risk."""

from __future__ import annotations

import streamlit as st

from .results import FindingRecord, ReasonRecord, RiskRecord, SeriesRecord, Study
from .volume_view import evidence_problem
from .wording import (
    BADGES,
    CALIBRATION,
    deletion_text,
    finding_name,
    plain,
    reason_lines,
    region_facts,
    series_facts,
    spoken,
    why,
)


def show_details(study: Study, finding: FindingRecord | None) -> None:
    """Tabs: the finding in focus, the regions, the series and the model; the last two always, the risk when there is one."""
    drawers = {"Regions": lambda: _regions(study), "Series": lambda: _series(study)}
    if study.findings:
        drawers = {"Finding": lambda: _finding(study, finding)} | drawers
    if study.risk:
        drawers["Prognosis"] = lambda: _risk(study.risk)
    for tab, drawer in zip(st.tabs(list(drawers)), drawers.values(), strict=True):
        with tab:
            drawer()


def _finding(study: Study, finding: FindingRecord | None) -> None:
    if finding is None:
        st.caption("No finding is in focus. Choose one in the list.")
        return
    st.markdown(f"**{plain(finding_name(finding))}**, {plain(spoken(finding.region))} {BADGES[finding.verdict]}")
    st.text(why(finding))
    if finding.score is not None:
        st.text(CALIBRATION[finding.calibrated])
    _reasons(finding.reasons)
    st.text(evidence_problem(study, finding) or deletion_text(finding))
    present, absent = st.columns(2)
    with present:
        _prompts("present", finding.prompts.present)
    with absent:
        _prompts("absent", finding.prompts.absent)


def _prompts(verdict: str, prompts: tuple[str, ...]) -> None:
    st.caption(f"Prompts: {verdict}")
    for prompt in prompts or ("none recorded",):
        st.text(prompt)


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
    if series.why:
        st.text(f"Why this series: {series.why}")
    _reasons(series.reasons)


def _model(study: Study) -> None:
    st.caption("Model")
    bundle = study.bundle
    st.text(f"Bundle {bundle.name or 'not recorded'}" + (f", SHA-256 {bundle.sha256[:16]}" if bundle.sha256 else ""))
    st.text(f"Written by {study.software or 'an unnamed version'}")


def _risk(risk: RiskRecord | None) -> None:
    if risk is None:
        return
    st.markdown(f"**{plain(risk.endpoint.capitalize() or 'Risk')}**")
    if risk.percentile is not None:
        st.text(f"Higher predicted risk than {risk.percentile:.0f} % of the reference patients.")
    elif risk.value is not None:
        st.text(f"Relative risk {risk.value:.2f}; higher is worse.")
    _reasons(risk.reasons)


def _reasons(reasons: tuple[ReasonRecord, ...]) -> None:
    for line in reason_lines(reasons):
        st.text(f"• {line}")
