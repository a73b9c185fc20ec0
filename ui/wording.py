"""What the page says about a study, in words. Pure functions; texts from files are escaped before they meet Markdown."""

from __future__ import annotations

import re

from .study import FindingRecord, ReasonRecord, RegionRecord, SeriesRecord, Study, Verdict

BADGES: dict[Verdict, str] = {
    "present": ":orange-badge[▲ present]",
    "undecided": ":gray-badge[? undecided]",
    "absent": ":blue-badge[– absent]",
}
CALIBRATION = {
    True: "The score is a calibrated probability.",
    False: "The score is not calibrated: read it as an order, not as a probability.",
}
STATUS = {
    "done": "read",
    "skipped": "skipped",
    "failed": "failed",
    "unreadable": "unreadable",
    "waiting": "waiting",
    "quarantined": "set aside",
}
_POSITIVE: tuple[Verdict, ...] = ("present", "undecided")
STATUS_SENTENCE = {
    "skipped": "This study was skipped: its images do not fit the model. No finding was computed.",
    "failed": "This study failed: the fault is ours, not the images'. No finding was computed.",
    "unreadable": "The result of this study cannot be read.",
    "waiting": "This study waits for inference. Its findings appear here when it is through.",
    "quarantined": "This study was set aside: it took too much time or memory, or ended the process that read it.",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")


_LATE = re.compile(r"(?<=:)(?=//|material/|streamlit:)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)
_JOINER = "\u2060"  # no width, no break: bare addresses and icons are made after every escape is undone
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` that Streamlit's Markdown shows letter by letter, on one line and in reading order; addresses are no links."""
    return _MARKDOWN.sub(r"\\\1", _LATE.sub(_JOINER, _TURNING.sub("", " ".join(text.split()))))


def spoken(name: str) -> str:
    """``kidney_left`` as "left kidney"; other names with spaces for underscores."""
    for side in ("left", "right"):
        if name.endswith(f"_{side}"):
            return f"{side} {name.removesuffix(f'_{side}').replace('_', ' ')}"
    return name.replace("_", " ")


def finding_name(finding: FindingRecord) -> str:
    """Label of the finding, or its code when it has none."""
    return finding.label or spoken(finding.finding).capitalize()


def score_text(finding: FindingRecord) -> str:
    """The score with two digits and whether it is a calibrated probability."""
    if finding.score is None:
        return "no score"
    return f"{finding.score:.2f} {'calibrated' if finding.calibrated else 'uncalibrated'}"


def reason_lines(reasons: tuple[ReasonRecord, ...]) -> list[str]:
    """One line per reason: its sentence, or its code when there is no sentence."""
    return [reason.message or reason.code for reason in reasons if reason.message or reason.code]


def why(finding: FindingRecord) -> str:
    """How the verdict follows from score and thresholds."""
    if finding.score is None:
        return "No score was computed."
    score, low, high = finding.score, finding.threshold_low, finding.threshold_high
    if low is None or high is None:
        return f"Score {score:.2f}; the bundle holds no thresholds for this finding."
    band = f"absent below {low:.2f}, present from {high:.2f}, undecided between"
    inside = "present" if score >= high else "absent" if score < low else "undecided"
    tail = "" if inside == finding.verdict else " The verdict is withheld for the reason given."
    return f"Score {score:.2f}; {band}.{tail}"


def headline(study: Study) -> str:
    """The worklist's line on a study: counts and the finding to see first, or why it was not read."""
    if study.status != "done":
        return next(iter(reason_lines(study.reasons)), "no reason was recorded")
    if study.top is None:
        return "no findings"
    counts = [f"{n} {verdict}" for verdict in _POSITIVE if (n := study.count(verdict))]
    score = "" if study.top.score is None else f" {study.top.score:.2f}"
    return f"{', '.join(counts) or 'nothing present'}. Top: {finding_name(study.top)}{score}, {spoken(study.top.region)}"


def series_facts(series: SeriesRecord) -> str:
    """Modality, size and spacing on one line."""
    parts = [series.modality]
    if series.shape_dhw:
        parts.append(" x ".join(str(n) for n in series.shape_dhw) + " voxels")
    if series.spacing_mm:
        parts.append(" / ".join(f"{mm:.2f}" for mm in series.spacing_mm) + " mm")
    return ", ".join(part for part in parts if part)


def region_facts(region: RegionRecord) -> str:
    """Where a region came from and how sure that is, on one line."""
    parts = ["found" if region.found else "not found", f"by {region.source}" if region.source else ""]
    if region.confidence is not None:
        parts.append(f"confidence {region.confidence:.2f}")
    if region.covered is not None:
        parts.append(f"{100 * region.covered:.0f} % inside the scan")
    if region.ood is not None:
        side = "outside" if region.ood.out else "within"
        pairs = (("distance", region.ood.distance), ("limit", region.ood.limit))
        numbers = ", ".join(f"{name} {value:.2f}" for name, value in pairs if value is not None)
        parts.append(f"{side} what the model was trained on" + (f" ({numbers})" if numbers else ""))
    return ", ".join(part for part in parts if part)
