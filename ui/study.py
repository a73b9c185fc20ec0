"""A study's `findings.json` as typed records, and small questions to them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT = "medvl.findings/1"
Point = tuple[float, float, float]
Row = tuple[float, float, float, float]
Status = Literal["done", "skipped", "failed", "unreadable", "waiting", "quarantined"]  # the last two are the ledger's
Verdict = Literal["present", "absent", "undecided"]


class _Record(BaseModel):
    """Frozen; keys of later versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ReasonRecord(_Record):
    """A reason code with its sentence."""

    code: str = ""
    message: str = ""


class BundleRecord(_Record):
    """Which model bundle wrote the result."""

    name: str = ""
    sha256: str = ""
    contract: str = ""


class SeriesRecord(_Record):
    """The series that was used, or why none could be; `patient` is a keyed hash and `person` a link, which older results lack."""

    key: str = ""
    patient: str | None = None
    person: str | None = None
    modality: str = ""
    facts: dict[str, str | float | bool | list[str] | None] = {}
    verdict: str = ""
    reasons: tuple[ReasonRecord, ...] = ()
    shape_dhw: tuple[int, int, int] | None = None
    spacing_mm: Point | None = None
    why: str = ""


class OodRecord(_Record):
    """Distance of a region's features from those the model was trained on."""

    distance: float | None = None
    limit: float | None = None
    out: bool = False


class RegionRecord(_Record):
    """One organ side: where it was found and how sure the localiser was."""

    name: str
    found: bool = True
    center_lps: Point | None = None
    confidence: float | None = None
    source: str = ""
    covered: float | None = None
    shape_dhw: tuple[int, int, int] | None = None
    affine_lps: tuple[Row, Row, Row, Row] | None = None
    reasons: tuple[ReasonRecord, ...] = ()
    ood: OodRecord | None = None


class PromptsRecord(_Record):
    """The sentences the image was compared with."""

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


class DeletionRecord(_Record):
    """Score before and after the evidence region was removed from the image, and after as much was removed elsewhere."""

    before: float
    after: float
    control: float | None = None


class SpreadRecord(_Record):
    """The score over other wordings of the prompts: standard deviation, 95 % range, share with the other answer."""

    sd: float
    low: float
    high: float
    turned: float


class FindingRecord(_Record):
    """One finding in one region."""

    finding: str
    label: str = ""
    region: str = ""
    score: float | None = None
    calibrated: bool = False
    verdict: Verdict = "undecided"
    threshold: float | None = None
    threshold_low: float | None = None
    threshold_high: float | None = None
    reasons: tuple[ReasonRecord, ...] = ()
    prompts: PromptsRecord = PromptsRecord()
    heatmap: str | None = None
    peak_lps: Point | None = None
    deletion: DeletionRecord | None = None
    interval: tuple[float, float] | None = None
    spread: SpreadRecord | None = None
    margin: float | None = None
    percentile: float | None = None

    @property
    def key(self) -> str:
        """Unique within a study."""
        return f"{self.finding}@{self.region}"


class RiskRecord(_Record):
    """The survival head's output."""

    endpoint: str = ""
    value: float | None = None
    percentile: float | None = None
    survival: dict[str, float] | None = None
    interval: dict[str, tuple[float, float]] | None = None
    reasons: tuple[ReasonRecord, ...] = ()


class Study(_Record):
    """One study's `findings.json`."""

    format: str = Field(default=FORMAT, alias="schema")
    case_id: str
    software: str = ""
    research_use: str = ""
    bundle: BundleRecord = BundleRecord()
    made_at: str = ""
    status: Status = "done"
    reasons: tuple[ReasonRecord, ...] = ()
    series: SeriesRecord | None = None
    pixels_sha256: str = ""
    regions: tuple[RegionRecord, ...] = ()
    findings: tuple[FindingRecord, ...] = ()
    risk: RiskRecord | None = None

    def count(self, verdict: Verdict) -> int:
        """How many findings have this verdict."""
        return sum(finding.verdict == verdict for finding in self.findings)

    @property
    def top(self) -> FindingRecord | None:
        """The finding a reader should see first: present before undecided before absent, then the highest score."""
        return ranked(self.findings)[0] if self.findings else None


def region_center(study: Study, name: str) -> Point | None:
    """Where a region's middle lies, in LPS mm; None when it was not found."""
    return next((region.center_lps for region in study.regions if region.name == name), None)


def ranked(findings: tuple[FindingRecord, ...]) -> tuple[FindingRecord, ...]:
    """Findings in reading order: present, undecided, absent; within each the highest score first, no score last."""
    order = {"present": 0, "undecided": 1, "absent": 2}
    return tuple(sorted(findings, key=lambda f: (order[f.verdict], -(f.score if f.score is not None else -1.0))))
