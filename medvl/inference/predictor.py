"""One scan in, findings with evidence out: localise, crop, embed, score, explain, doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvl.errors import ConfigError
from medvl.evaluation.calibration import Calibration
from medvl.evaluation.outliers import Familiarity
from medvl.heads.answering import Read
from medvl.heads.ways import Towers
from medvl.imaging.appearance import appearance
from medvl.imaging.preprocess import window
from medvl.inference.answers import CaseResult, FindingResult, RegionResult
from medvl.inference.asking import Scored, answering_of, asking_of
from medvl.inference.chunks import read_parts
from medvl.inference.evidence import Evidence
from medvl.inference.explaining import Asked, Explainer
from medvl.inference.regions import Clock, Prepared, Preparer
from medvl.models.bundle import Bundle
from medvl.models.clip import RegionClip
from medvl.models.encoders.base import Encoded
from medvl.models.localiser import Place
from medvl.records import Reason, Volume
from medvl.survival.model import SurvivalModel
from medvl.text.prompts import Finding, FindingList, load_findings

Encodings = dict[tuple[int, str], Encoded]
__all__ = ["CaseResult", "FindingResult", "Predictor", "RegionResult"]


class Predictor:
    """A bundle, loaded once and used for many scans, whether prompts answer or concept streams.

    Args:
        bundle: verified.
        device: where the towers run.
        given: places of regions known from elsewhere, such as masks; they stand above the localiser.
        findings: a user's questions instead of the bundle's. Those that the bundle asks in the same words are answered as
            usual; others get a margin and no verdict.
        cache: folder that keeps embedded prompts by their hash.
        bf16: run the towers in bfloat16 where that is faster; margins differ in the third digit.

    Raises:
        ConfigError: questions about regions that the bundle does not know, or that its concept streams were not taught.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "cpu",
        given: Mapping[str, Place] | None = None,
        *,
        findings: FindingList | None = None,
        cache: Path | None = None,
        bf16: bool = False,
    ) -> None:
        self.bundle, self.device, self.bf16 = bundle, torch.device(device), bf16
        self.contract, self.kinds = bundle.contract, bundle.kinds
        own = load_findings(bundle.text("findings.yaml"))
        self.findings, self.users = findings or own, findings is not None
        self.answering = answering_of(bundle, own, self.findings, self.device, cache)
        self.prepare = Preparer(bundle, given)
        fitted = {k: Calibration(**v) for k, v in bundle.values("calibration.json").items()}
        self.asking = asking_of(bundle, self.answering, own, fitted)
        self.calibration = dict(self.asking.calibration)
        self.familiarity = _familiarity(bundle)
        self.explainer = Explainer(self.answering, self.calibration, self.number_of, self.read)
        self.survival = SurvivalModel.from_json(bundle.values("survival.json")) if "survival.json" in bundle else None

    @property
    def clip(self) -> RegionClip:
        """The image tower and what stands beside it."""
        return self.answering.system.clip

    @property
    def asked(self) -> dict[str, str] | None:
        """Name and hash of a user's questions; None where the bundle's own are asked."""
        return {"name": self.findings.name, "sha256": self.findings.sha256} if self.users else None

    def kind_of(self, region: str) -> str:
        """The kind a region belongs to."""
        return next(kind for kind, names in self.kinds.items() if region in names)

    def number_of(self, region: str) -> int:
        """The number of the kind a region belongs to."""
        return list(self.kinds).index(self.kind_of(region))

    def predict(self, volume: Volume, *, age_years: float | None = None, explain: bool = True) -> CaseResult:
        """Findings of one scan.

        Args:
            volume: HU with geometry.
            age_years: for the survival estimate, if known.
            explain: also draw heat maps and run deletion tests for what is not absent in a usable, familiar region, and tell
                how far scores spread over paraphrases (needed for verdicts where the bundle has limits for it).
        """
        return self.answer([self.prepare(volume, age_years=age_years)], explain=explain)[0]

    def answer(self, scans: Sequence[Prepared], *, explain: bool = True) -> list[CaseResult]:
        """Findings of several scans, whose regions go through the towers together."""
        clock = Clock()
        embedded, encodings = self._embed([scan.regions for scan in scans])
        clock.lap("encode")
        said, scoring = [], []
        for regions in embedded:
            said.append(self._answer(regions, explain))
            clock.lap("score")
            scoring.append(clock.laps["score"])
        if explain:
            said = self._explained(embedded, said, encodings)
        clock.lap("explain")
        encode, shown = (round(clock.laps[name] / max(1, len(scans)), 4) for name in ("encode", "explain"))
        found = []
        for scan, regions, findings, score in zip(scans, embedded, said, scoring, strict=True):
            known = {n: r.embedding for n, r in regions.items() if r.embedding is not None and not r.reasons}
            risk = self.survival.estimate(known, scan.age_years) if self.survival else None
            laps = {**scan.timings_s, "encode": encode, "score and explain": round(score + shown, 4)}
            found.append(CaseResult(regions, findings, risk, laps))
        return found

    def read(self, hu: Sequence[NDArray[np.int16]], regions: Sequence[str]) -> Read:
        """What the system makes of B HU grids (D, H, W), all of regions of one kind."""
        return self._read(hu, regions)[0]

    def _read(self, hu: Sequence[NDArray[np.int16]], regions: Sequence[str]) -> tuple[Read, list[Encoded]]:
        kind = self.number_of(regions[0])
        return read_parts(self.answering, lambda k: self.pixels(hu[k], regions[k]), len(hu), kind, bf16=self.bf16)

    def _embed(self, scans: Sequence[dict[str, RegionResult]]) -> tuple[list[dict[str, RegionResult]], Encodings]:
        """The same regions with what the towers and the familiarity check make of those that are usable; and their tokens."""
        out, encodings = [dict(regions) for regions in scans], Encodings()
        for kind, names in self.kinds.items():
            usable = [(at, r) for at, regions in enumerate(scans) for r in (regions[n] for n in names) if _usable(r)]
            if not usable:
                continue
            found, encoded = self._read([r.hu for _, r in usable], [r.name for _, r in usable])  # type: ignore[misc]
            for row, (at, region) in enumerate(usable):
                out[at][region.name] = self._embedded(region, kind, found, row)
                encodings[at, region.name] = encoded[row]
        return out, encodings

    def _embedded(self, region: RegionResult, kind: str, found: Read, row: int) -> RegionResult:
        familiar, pooled = self.familiarity[kind], found.pooled[row].numpy()
        distance = float(familiar.distance(pooled[None])[0])
        strange = [_unlike(f"{region.name} looks", distance, familiar.limit), *self._image_reasons(region, kind)]
        return replace(
            region,
            distance=distance,
            limit=familiar.limit,
            reasons=(*region.reasons, *(reason for reason in strange if reason)),
            embedding=found.embedding[row],
            pooled=pooled,
            answers=found.answers[row],
        )

    def _image_reasons(self, region: RegionResult, kind: str) -> list[Reason | None]:
        """Whether the crop itself is of another world; bundles from before this was looked at do not say."""
        usual = self.familiarity.get(f"{kind}/image")
        if usual is None or region.hu is None:
            return []
        distance = float(usual.distance(appearance(region.hu)[None])[0])
        return [_unlike(f"{region.name}: HU and texture of the image are", distance, usual.limit)]

    def embed_texts(self, texts: list[str]) -> Tensor:
        """(N, E) unit embeddings of free texts.

        Raises:
            ConfigError: the bundle answers by concept streams, in whose space no text tower writes.
        """
        if not isinstance(self.answering, Towers):
            raise ConfigError(f"bundle {self.bundle.name} answers by concept streams and embeds no free text")
        return self.answering.embed_texts(texts)

    def pixels(self, hu: NDArray[np.int16], region: str) -> Tensor:
        """(C, D, H, W) windowed input of a region's HU grid."""
        return torch.from_numpy(window(hu, self.contract[region].windows_hu))

    def margin(self, finding: Finding, region: str, answers: Tensor) -> float:
        """The uncalibrated score of a finding from a region's `answers` (K,)."""
        return float(self.answering.margin(finding, region, answers[None])[0])

    def _answer(self, regions: dict[str, RegionResult], spreads: bool) -> tuple[FindingResult, ...]:
        scored: dict[str, Scored | None] = {
            name: None if r.answers is None else self.asking.score(name, r.answers, spreads=spreads)
            for name, r in regions.items()
        }
        answers: dict[tuple[str, str], FindingResult] = {}
        for finding in self.findings.findings:
            if not self.users and finding.key not in self.calibration:
                continue
            for name in self.kinds[finding.region]:
                given = answers.get((finding.given, name)) if finding.given else None
                if given is not None and given.verdict == "absent":
                    continue
                answers[finding.key, name] = self.asking.answer(finding, regions[name], scored[name], given)
        return tuple(answers.values())

    def _explained(
        self, scans: Sequence[dict[str, RegionResult]], said: Sequence[tuple[FindingResult, ...]], encodings: Encodings
    ) -> list[tuple[FindingResult, ...]]:
        """With heat maps and deletion tests for what is not absent, not uncalibrated, and of a region that can be used."""
        wanted: dict[tuple[int, str], list[FindingResult]] = {}
        for at, (regions, findings) in enumerate(zip(scans, said, strict=True)):
            for found in findings:
                if found.score is not None and found.verdict != "absent" and not regions[found.region].reasons:
                    wanted.setdefault((at, found.region), []).append(found)
        asked = [
            Asked(scans[at][name], encodings[at, name], [f.finding for f in some], [f.score or 0.0 for f in some])
            for (at, name), some in wanted.items()
        ]
        shown: dict[tuple[int, str, str], FindingResult] = {}
        for (at, name), some, each in zip(wanted, wanted.values(), self.explainer(asked), strict=True):
            for found, (heat, evidence) in zip(some, each, strict=True):
                grid = scans[at][name].geometry
                shown[at, name, found.finding.key] = replace(found, heat=heat, heat_geometry=grid, evidence=evidence)
        return [tuple(shown.get((at, f.region, f.finding.key), f) for f in findings) for at, findings in enumerate(said)]

    def explain(self, finding: Finding, region: RegionResult) -> tuple[NDArray[np.float32], Evidence]:
        """Heat map (D, H, W) float32 in [0, 1] on the region's grid, and its peak with the deletion test."""
        assert region.answers is not None  # noqa: S101 - callers checked
        before = float(self.calibration[finding.key].probability(self.margin(finding, region.name, region.answers)))
        return self.explainer([self._asked(finding, region, before)])[0][0]

    def heat(self, finding: Finding, region: RegionResult) -> NDArray[np.float32]:
        """(D, H, W) float32 in [0, 1]: where the region speaks for the finding, on the region's grid."""
        heat: NDArray[np.float32] = self.explainer.heats(self._asked(finding, region))[0]
        return heat

    def _asked(self, finding: Finding, region: RegionResult, before: float = 0.0) -> Asked:
        assert region.hu is not None  # noqa: S101 - callers checked
        return Asked(region, self._read([region.hu], [region.name])[1][0], [finding], [before])


def _usable(region: RegionResult) -> bool:
    return region.hu is not None and not region.reasons


def _unlike(what: str, distance: float, limit: float) -> Reason | None:
    if distance <= limit:
        return None
    return Reason("out_of_distribution", f"{what} unlike the training data (distance {distance:.2f}, limit {limit:.2f})")


def _familiarity(bundle: Bundle) -> dict[str, Familiarity]:
    tensors = bundle.tensors("familiarity.safetensors")
    names = {key.partition(".")[0] for key in tensors}
    return {
        name: Familiarity(
            tensors[f"{name}.mean"].numpy(),
            tensors[f"{name}.basis"].numpy(),
            float(tensors[f"{name}.rest_scale"]),
            float(tensors[f"{name}.limit"]),
        )
        for name in names
    }
