"""A report draft: sentences with what each rests on, and a status that only a named reviewer can change. Never a report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

from medvl.errors import ConfigError

SCHEMA = "medvl.draft/1"
NOT_REVIEWED = "draft: not reviewed"
WARNING = "DRAFT, NOT REVIEWED. Written by software for research; not a report and not for diagnosis or treatment."
Source = Literal["generated", "retrieved", "template"]
Support = Literal["supported", "not supported", "not checked"]
_FLAGS = {"not supported": " [not supported by the model's findings]", "not checked": " [not checked]", "supported": ""}


@dataclass(frozen=True)
class Verdict:
    """A model's calibrated answer on one finding of one region, as far as drafts need it.

    Args:
        finding: its key; attribute: the extractor's name for it; label: what a person reads.
        region: such as kidney_left.
        verdict: present, absent or undecided.
        probability: calibrated, None where the region was not usable.
        reasons: why undecided, for a person.
        region_wide: the reasons are those of the whole region, such as a scan that does not cover it.
        peak_lps: (x, y, z) mm of the heat map's peak.
    """

    finding: str
    attribute: str
    label: str
    region: str
    verdict: Literal["present", "absent", "undecided"]
    probability: float | None = None
    reasons: tuple[str, ...] = ()
    region_wide: bool = False
    peak_lps: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class DraftSentence:
    """One sentence and what it rests on.

    Args:
        text: the sentence.
        findings: keys of the findings it states, present, absent or open.
        region: which it speaks of.
        source: written by the captioner, taken from a training report, or filled into a template.
        support: by the verdicts: all it states agrees (supported), something contradicts or is undecided (not supported), or no
            verdict speaks of what it says (not checked).
        against: attributes whose verdicts do not bear the sentence out.
        unverified: what it says beyond the verdicts, such as a size, a grade or a place.
        probabilities: calibrated, by finding; peaks_lps: of the heat maps, where there are any.
        neighbours: ids of the reports that it was taken from.
        log_probability: mean a token, of a generated text.
    """

    text: str
    findings: tuple[str, ...]
    region: str
    source: Source
    support: Support
    against: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    probabilities: Mapping[str, float | None] | None = None
    peaks_lps: Mapping[str, tuple[float, float, float]] | None = None
    neighbours: tuple[str, ...] = ()
    log_probability: float | None = None

    @property
    def supported(self) -> bool:
        """Whether the verdicts bear the sentence out."""
        return self.support == "supported"


@dataclass(frozen=True)
class Review:
    """Who took responsibility for a draft, when, and what was done to it.

    Args:
        by: name; at: time, with its zone; dropped: texts of sentences struck out; accepted: texts kept although not supported.
    """

    by: str
    at: str
    dropped: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A structured draft of one study.

    Args:
        sentences: in reading order.
        case_id: of the study, without identifiers.
        model: name and SHA-256 of the bundle.
        review: by `reviewed` alone.
    """

    sentences: tuple[DraftSentence, ...]
    case_id: str = ""
    model: Mapping[str, str] | None = None
    review: Review | None = None

    @property
    def status(self) -> str:
        """``draft: not reviewed`` until somebody puts a name to it."""
        return NOT_REVIEWED if self.review is None else f"reviewed by {self.review.by} at {self.review.at}"

    def reviewed(self, by: str, at: datetime, *, drop: Collection[int] = (), accept: Collection[int] = ()) -> Draft:
        """The draft after a person went through it.

        Args:
            by: the reviewer's name.
            at: when, with a time zone.
            drop: numbers of sentences to strike out.
            accept: numbers of sentences to keep although they are not supported.

        Raises:
            ConfigError: no name, no time zone, a number that is no sentence's, a draft reviewed before, or a sentence that is not
                supported and is neither dropped nor accepted.
        """
        if not by.strip():
            raise ConfigError("a review needs the reviewer's name")
        if at.tzinfo is None:
            raise ConfigError("the time of a review needs a time zone")
        if self.review is not None:
            raise ConfigError(f"this draft was {self.status}; review the original draft again instead")
        strange = sorted((set(drop) | set(accept)) - set(range(len(self.sentences))))
        if strange or set(drop) & set(accept):
            raise ConfigError(f"sentences to drop and accept must be different ones of 0 to {len(self.sentences) - 1}")
        open_ones = [k for k, s in enumerate(self.sentences) if s.support == "not supported" and k not in {*drop, *accept}]
        if open_ones:
            raise ConfigError(f"sentences {open_ones} are not supported by the model's findings; drop or accept each of them")
        said = [s.text for s in self.sentences]
        review = Review(by.strip(), at.isoformat(), tuple(said[k] for k in sorted(drop)), tuple(said[k] for k in sorted(accept)))
        return replace(self, sentences=tuple(s for k, s in enumerate(self.sentences) if k not in drop), review=review)

    def regions(self, *, supported_only: bool = False) -> dict[str, str]:
        """The text of each region, without flags; with `supported_only` without sentences that are not supported."""
        out: dict[str, list[str]] = {}
        for s in self.sentences:
            if not (supported_only and s.support == "not supported"):
                out.setdefault(s.region, []).append(s.text)
        return {region: " ".join(texts) for region, texts in out.items()}

    def text(self) -> str:
        """For a person: the status first and last, a paragraph a region, flags behind sentences."""
        status = WARNING if self.review is None else self.status[0].upper() + self.status[1:] + "."
        lines: dict[str, list[str]] = {}
        for s in self.sentences:
            lines.setdefault(s.region, []).append(s.text + (_FLAGS[s.support] if self.review is None else ""))
        body = [f"{title(region)}: {' '.join(texts)}" for region, texts in lines.items()]
        return "\n".join([status, "FINDINGS", *body, f"Status: {self.status}."])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": SCHEMA,
            "status": self.status,
            "case_id": self.case_id,
            "model": dict(self.model or {}),
            "review": asdict(self.review) if self.review else None,
            "sentences": [{**asdict(s), "supported": s.supported} for s in self.sentences],
            "text": self.text(),
        }


def title(region: str) -> str:
    """``Left kidney`` for kidney_left, ``Chest`` for chest."""
    name, _, side = region.partition("_")
    return f"{side} {name}".strip().capitalize()
