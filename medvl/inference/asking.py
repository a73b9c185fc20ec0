"""From what a system makes of a region to verdicts: margins of all findings at once, calibrated where that was ever fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvl.errors import ConfigError
from medvl.evaluation.calibration import Calibration
from medvl.heads.answering import Answering
from medvl.heads.paraphrases import DRAWS, Paraphrases, Spread, spread_of
from medvl.heads.ways import Towers, answering
from medvl.inference.answers import FindingResult, RegionResult
from medvl.models.bundle import Bundle, load_system
from medvl.records import Reason
from medvl.text.prompts import Finding, FindingList

_QUESTION = ("key", "region", "truth", "given", "templates", "present", "absent")


def same_question(a: Finding, b: Finding) -> bool:
    """Whether what is known of one finding, such as its calibration, holds for the other: asked alike, and of the same thing."""
    return all(getattr(a, name) == getattr(b, name) for name in _QUESTION)


def known_to(own: FindingList, asked: FindingList) -> tuple[str, ...]:
    """Keys of the findings `asked` that the list `own` asks in the very same words."""
    mine = {f.key: f for f in own.findings}
    return tuple(f.key for f in asked.findings if f.key in mine and same_question(f, mine[f.key]))


@dataclass(frozen=True, eq=False)
class Scored:
    """All findings of one region: margins (F,), percentiles (F,) or None, and spreads by finding."""

    margins: NDArray[np.float64]
    percentiles: NDArray[np.float64] | None
    spreads: Mapping[str, Spread]


@dataclass(frozen=True, eq=False)
class Asking:
    """The questions of a bundle, or of a user, with what turns margins into verdicts.

    Args:
        answering: the system.
        calibration: by finding; others are given no verdict.
        limits: by finding, the share of paraphrases that may disagree with a verdict.
        reference: region to answers (n, K) of the bundle's reference regions, for percentiles.
        draws, seed: of the paraphrases.
    """

    answering: Answering
    calibration: Mapping[str, Calibration]
    limits: Mapping[str, float] = field(default_factory=dict)
    reference: Mapping[str, Tensor] = field(default_factory=dict)
    draws: int = DRAWS
    seed: int = 0

    @cached_property
    def places(self) -> dict[str, dict[str, int]]:
        """Region to the column of each finding asked of it."""
        regions = [name for names in self.answering.kinds.values() for name in names]
        return {name: {f.key: i for i, f in enumerate(self.answering.asked(name))} for name in regions}

    @cached_property
    def paraphrases(self) -> Paraphrases | None:
        """Drawn prompt ensembles; None where queries answer."""
        return Paraphrases(self.answering, self.draws, self.seed) if isinstance(self.answering, Towers) else None

    @cached_property
    def _sorted(self) -> dict[str, NDArray[np.float64]]:
        """Region to the sorted reference margins (n, F)."""
        return {name: np.sort(self.answering.margins(name, rows).double().numpy(), 0) for name, rows in self.reference.items()}

    @cached_property
    def _prompts(self) -> dict[tuple[str, str], tuple[list[str], list[str]]]:
        return {}

    def prompts(self, finding: Finding, region: str) -> tuple[list[str], list[str]]:
        """Present and absent sentences; none where queries answer."""
        if (finding.key, region) not in self._prompts:
            said = finding.prompts(region) if isinstance(self.answering, Towers) else ([], [])
            self._prompts[finding.key, region] = said
        return self._prompts[finding.key, region]

    def score(self, region: str, answers: Tensor, *, spreads: bool = True) -> Scored:
        """All findings of a region from its answers (K,): one product, and one more for the paraphrases."""
        margins = self.answering.margins(region, answers[None])[0].double().numpy()
        told: dict[str, Spread] = {}
        calibrated = [key for key in self.places[region] if key in self.calibration]
        if calibrated and self.paraphrases is not None and (spreads or self.limits):
            drawn = self.paraphrases.margins(region, answers[None], calibrated)
            told = {
                key: spread_of(self.calibration[key], margins[self.places[region][key]], rows[0]) for key, rows in drawn.items()
            }
        return Scored(margins, self._percentiles(region, margins), told)

    def _percentiles(self, region: str, margins: NDArray[np.float64]) -> NDArray[np.float64] | None:
        rows = self._sorted.get(region)
        if rows is None or not len(rows):
            return None
        return np.asarray(100 * ((rows < margins).sum(0) + (rows == margins).sum(0) / 2) / len(rows))

    def answer(
        self, finding: Finding, region: RegionResult, scored: Scored | None, given: FindingResult | None = None
    ) -> FindingResult:
        """One answer without evidence; `given` is the answer that it depends on."""
        calibration = self.calibration.get(finding.key)
        prompts, reasons = self.prompts(finding, region.name), list(region.reasons)
        if scored is None:
            return FindingResult(finding, region.name, None, "undecided", calibration, tuple(reasons), prompts)
        column = self.places[region.name][finding.key]
        margin, spread = float(scored.margins[column]), scored.spreads.get(finding.key)
        percentile = None if scored.percentiles is None else float(scored.percentiles[column])
        score = None if calibration is None else float(calibration.probability(margin))
        verdict = "undecided"
        if calibration is None or score is None:
            reasons.append(
                Reason("not_calibrated", "the bundle holds no calibration for this question; the margin is no verdict")
            )
        elif not reasons:
            doubt = self._doubt(finding, calibration, score, spread, given)
            verdict = "undecided" if doubt else calibration.verdict(score)
            reasons += [doubt] if doubt else []
        return FindingResult(
            finding,
            region.name,
            score,
            verdict,
            calibration,
            tuple(reasons),
            prompts,
            margin=margin,
            percentile=percentile,
            spread=spread,
        )

    def _doubt(
        self, finding: Finding, calibration: Calibration, score: float, spread: Spread | None, given: FindingResult | None
    ) -> Reason | None:
        """Why a score of a usable region is no verdict."""
        if given is not None and given.verdict == "undecided":
            label = given.finding.label.lower()
            return Reason("depends_on_undecided", f"asked only if {label} is present, which is undecided")
        if calibration.verdict(score) == "undecided":
            return Reason("near_threshold", f"score {score:.2f} lies between {calibration.low:.2f} and {calibration.high:.2f}")
        limit = self.limits.get(finding.key)
        if spread is not None and limit is not None and spread.turned > limit:
            return Reason(
                "paraphrases_disagree",
                f"{spread.turned:.0%} of other wordings give the other answer; at most {limit:.0%} may",
            )
        return None


def drawn_of(bundle: Bundle) -> dict[str, Any]:
    """`draws` and `seed` of a bundle's paraphrases, and `limits` by finding; no limits where it has none."""
    if "paraphrases.json" not in bundle:
        return {"limits": {}, "draws": DRAWS, "seed": 0}
    return dict(bundle.values("paraphrases.json"))


def asking_of(bundle: Bundle, answering: Answering, own: FindingList, calibration: Mapping[str, Calibration]) -> Asking:
    """What a bundle knows of the questions that `answering` asks.

    Args:
        bundle: opened.
        answering: its system with its own questions, or a user's.
        own: the bundle's questions.
        calibration: of the bundle's own questions.
    """
    known = known_to(own, answering.findings)
    drawn = drawn_of(bundle)
    return Asking(
        answering,
        {key: calibration[key] for key in known if key in calibration},
        {key: drawn["limits"][key] for key in known if key in drawn["limits"]},
        bundle.tensors("reference.safetensors") if "reference.safetensors" in bundle else {},
        drawn["draws"],
        drawn["seed"],
    )


def answering_of(bundle: Bundle, own: FindingList, asked: FindingList, device: torch.device, cache: Path | None) -> Answering:
    """The bundle's system with questions; prompts that it has embedded are taken as they are.

    Raises:
        ConfigError: a question about regions that the bundle does not know.
    """
    strange = sorted({f.region for f in asked.findings} - set(bundle.kinds))
    if strange:
        raise ConfigError(f"the findings list {asked.name} asks about {strange[0]}; the bundle knows {', '.join(bundle.kinds)}")
    kept = {f"{key}@{region}" for key in known_to(own, asked) for region in bundle.kinds[own[key].region]}
    bank = {name: pair for name, pair in bundle.tensors("bank.safetensors").items() if name in kept}
    prior = bundle.tensors("prior.safetensors") if "prior.safetensors" in bundle else {}
    return answering(load_system(bundle).to(device), bundle.kinds, asked, bank=bank, prior=prior, cache=cache)
