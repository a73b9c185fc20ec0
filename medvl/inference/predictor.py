"""One scan in, findings with evidence out: localise, crop, embed, score, explain, doubt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from medvl.evaluation.calibration import Calibration
from medvl.evaluation.outliers import Familiarity
from medvl.geometry import Geometry
from medvl.imaging.preprocess import MIN_COVERED, to_hu_grid, window
from medvl.imaging.resample import covered_fraction
from medvl.inference.evidence import Evidence, deletion, peak_of
from medvl.models.bundle import Bundle
from medvl.models.clip import RegionClip
from medvl.models.config import ClipConfig, LocaliserConfig
from medvl.models.localiser import Localiser, Place
from medvl.records import Reason, Volume
from medvl.survival.model import SurvivalModel
from medvl.text.prompts import Finding, load_findings


@dataclass(frozen=True, eq=False)
class RegionResult:
    """One region: where, how complete, how familiar; `hu`, `embedding` and `pooled` features only when it was usable."""

    name: str
    place: Place | None
    source: str
    geometry: Geometry | None
    covered: float
    distance: float | None
    limit: float | None
    reasons: tuple[Reason, ...]
    hu: NDArray[np.int16] | None = None
    embedding: Tensor | None = None
    pooled: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class FindingResult:
    """One answer: calibrated score, verdict, why undecided, and the evidence."""

    finding: Finding
    region: str
    score: float | None
    verdict: str
    calibration: Calibration
    reasons: tuple[Reason, ...]
    prompts: tuple[list[str], list[str]]
    heat: NDArray[np.float32] | None = None
    heat_geometry: Geometry | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True, eq=False)
class CaseResult:
    """Everything the model says of one scan."""

    regions: dict[str, RegionResult]
    findings: tuple[FindingResult, ...]
    risk: Mapping[str, Any] | None
    timings_s: dict[str, float] = field(default_factory=dict)


class Predictor:
    """A bundle, loaded once and used for many scans.

    Args:
        bundle: verified.
        device: where the towers run.
        given: places of regions known from elsewhere, such as masks; they stand above the localiser.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", given: Mapping[str, Place] | None = None) -> None:
        shapes = bundle.values("model.json")
        self.bundle, self.device = bundle, torch.device(device)
        self.contract = bundle.contract
        self.given = dict(given or {})
        self.kinds: dict[str, tuple[str, ...]] = {k: tuple(v) for k, v in shapes["kinds"].items()}
        weights = bundle.tensors("weights.safetensors")
        tokenizer = Tokenizer.from_str(bundle.text("tokenizer.json"))
        self.clip = RegionClip(ClipConfig.model_validate(shapes["clip"]), tokenizer)
        self.clip.load_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("clip.")})
        self.clip.eval().to(self.device)
        self.localiser = Localiser(LocaliserConfig.model_validate(shapes["localiser"]))
        self.localiser.load_state_dict({k[10:]: v for k, v in weights.items() if k.startswith("localiser.")})
        self.localiser.eval()
        self.findings = load_findings(bundle.text("findings.yaml"))
        self.bank = bundle.tensors("bank.safetensors")
        self.calibration = {k: Calibration(**v) for k, v in bundle.values("calibration.json").items()}
        self.familiarity = _familiarity(bundle)
        self.survival = (
            SurvivalModel.from_json(bundle.values("survival.json")) if "survival.json" in bundle.manifest["files"] else None
        )

    def kind_of(self, region: str) -> str:
        """The kind a region belongs to."""
        return next(kind for kind, names in self.kinds.items() if region in names)

    def predict(self, volume: Volume, *, age_years: float | None = None, explain: bool = True) -> CaseResult:
        """Findings of one scan.

        Args:
            volume: HU with geometry.
            age_years: for the survival estimate, if known.
            explain: also draw heat maps and run deletion tests for what is not absent in a usable, familiar region.
        """
        clock = _Clock()
        places = {**self.localiser.locate(volume), **self.given}
        clock.lap("localise")
        regions = {spec.name: self._region(volume, spec.name, places[spec.name]) for spec in self.contract.regions}
        clock.lap("preprocess")
        regions = self._embed(regions)
        clock.lap("encode")
        findings = self._answer(regions, explain)
        clock.lap("score and explain")
        known = {n: r.embedding for n, r in regions.items() if r.embedding is not None and not r.reasons}
        risk = self.survival.estimate(known, age_years) if self.survival else None
        return CaseResult(regions, findings, risk, clock.laps)

    def _region(self, volume: Volume, name: str, place: Place) -> RegionResult:
        spec, source = self.contract[name], "mask" if name in self.given else "localiser"
        if place.confidence < self.localiser.config.min_confidence:
            least = self.localiser.config.min_confidence
            reason = Reason(
                "region_not_found", f"the localiser is {place.confidence:.2f} sure of {name}; at least {least} is needed"
            )
            return RegionResult(name, place, source, None, 0.0, None, None, (reason,))
        grid = spec.geometry(place.center_lps)
        covered = covered_fraction(volume.geometry, grid)
        reasons: tuple[Reason, ...] = ()
        if covered < MIN_COVERED:
            message = f"the scan covers {covered:.0%} of {name}; at least {MIN_COVERED:.0%} is needed"
            reasons = (Reason("region_incomplete", message),)
        hu = to_hu_grid(volume, grid, fill=self.contract.fill_hu)
        return RegionResult(name, place, source, grid, covered, None, None, reasons, hu)

    @torch.no_grad()
    def encode(self, hu: Sequence[NDArray[np.int16]], regions: Sequence[str]) -> tuple[NDArray[np.float32], Tensor]:
        """Pooled features (B, P) float32 and unit embeddings (B, E) of B HU grids (D, H, W), all of regions of one kind."""
        pixels = torch.stack([self.pixels(grid, name) for grid, name in zip(hu, regions, strict=True)])
        kind = torch.full((len(pixels),), list(self.kinds).index(self.kind_of(regions[0])))
        pooled = self.clip.pooled(pixels, kind).float()
        return pooled.cpu().numpy(), functional.normalize(self.clip.project(pooled, kind), dim=-1).cpu()

    def _embed(self, regions: dict[str, RegionResult]) -> dict[str, RegionResult]:
        out = dict(regions)
        for kind, names in self.kinds.items():
            usable = [regions[n] for n in names if regions[n].hu is not None and not regions[n].reasons]
            if not usable:
                continue
            pooled, embeddings = self.encode([r.hu for r in usable], [r.name for r in usable])  # type: ignore[misc]
            familiar = self.familiarity[kind]
            for row, region in enumerate(usable):
                distance = float(familiar.distance(pooled[row : row + 1])[0])
                reasons = region.reasons
                if distance > familiar.limit:
                    reasons = (
                        *reasons,
                        Reason(
                            "out_of_distribution",
                            f"{region.name} looks unlike the training data (distance {distance:.2f}, limit {familiar.limit:.2f})",
                        ),
                    )
                out[region.name] = RegionResult(
                    region.name,
                    region.place,
                    region.source,
                    region.geometry,
                    region.covered,
                    distance,
                    familiar.limit,
                    reasons,
                    region.hu,
                    embeddings[row],
                    pooled[row],
                )
        return out

    def embed_texts(self, texts: list[str]) -> Tensor:
        """(N, E) unit embeddings of free texts."""
        with torch.no_grad():
            parts = [
                self.clip.embed_text(*(t.to(self.device) for t in self.clip.tokenize(texts[i : i + 64])))
                for i in range(0, len(texts), 64)
            ]
        return torch.cat(parts).cpu()

    def pixels(self, hu: NDArray[np.int16], region: str) -> Tensor:
        """(C, D, H, W) windowed input of a region's HU grid."""
        return torch.from_numpy(window(hu, self.contract[region].windows_hu)).to(self.device)

    def margin(self, finding: Finding, region: str, embedding: Tensor) -> float:
        """Cosine with the present prompts less that with the absent ones."""
        return float(embedding @ self.direction(finding, region))

    def direction(self, finding: Finding, region: str) -> Tensor:
        """(E,) present minus absent prompt embedding."""
        pair = self.bank[f"{finding.key}@{region}"]
        return pair[0] - pair[1]

    def _answer(self, regions: dict[str, RegionResult], explain: bool) -> tuple[FindingResult, ...]:
        answers: dict[tuple[str, str], FindingResult] = {}
        for finding in self.findings.findings:
            if finding.key not in self.calibration:
                continue
            for name in self.kinds[finding.region]:
                given = answers.get((finding.given, name)) if finding.given else None
                if given is not None and given.verdict == "absent":
                    continue
                answers[finding.key, name] = self._one(finding, regions[name], given, explain)
        return tuple(answers.values())

    def _one(self, finding: Finding, region: RegionResult, given: FindingResult | None, explain: bool) -> FindingResult:
        calibration = self.calibration[finding.key]
        prompts = finding.prompts(region.name)
        reasons = list(region.reasons)
        if region.embedding is None:
            return FindingResult(finding, region.name, None, "undecided", calibration, tuple(reasons), prompts)
        score = float(calibration.probability(self.margin(finding, region.name, region.embedding)))
        verdict = "undecided" if reasons else calibration.verdict(score)
        if given is not None and given.verdict == "undecided" and not reasons:
            verdict = "undecided"
            reasons.append(
                Reason("depends_on_undecided", f"asked only if {given.finding.label.lower()} is present, which is undecided")
            )
        if verdict == "undecided" and not reasons:
            reasons.append(
                Reason("near_threshold", f"score {score:.2f} lies between {calibration.low:.2f} and {calibration.high:.2f}")
            )
        if not explain or verdict == "absent" or region.reasons:
            return FindingResult(finding, region.name, score, verdict, calibration, tuple(reasons), prompts)
        heat, evidence = self.explain(finding, region)
        return FindingResult(
            finding, region.name, score, verdict, calibration, tuple(reasons), prompts, heat, region.geometry, evidence
        )

    @torch.no_grad()
    def explain(self, finding: Finding, region: RegionResult) -> tuple[NDArray[np.float32], Evidence]:
        """Heat map (D, H, W) float32 in [0, 1] on the region's grid, and its peak with the deletion test."""
        assert region.hu is not None and region.geometry is not None  # noqa: S101 - callers checked
        heat = self.heat(finding, region.name, region.hu)
        peak = peak_of(heat)

        def rescore(versions: list[NDArray[np.int16]]) -> list[float]:
            kind = torch.full((len(versions),), list(self.kinds).index(self.kind_of(region.name)))
            embeddings = self.clip.embed_image(torch.stack([self.pixels(hu, region.name) for hu in versions]), kind).cpu()
            margins = embeddings @ self.direction(finding, region.name)
            return [float(p) for p in self.calibration[finding.key].probability(margins.numpy())]

        return heat, deletion(region.hu, region.geometry, peak, rescore)

    @torch.no_grad()
    def heat(self, finding: Finding, region: str, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        """(D, H, W) float32 in [0, 1]: where the region speaks for the finding, on the region's grid."""
        kind = torch.tensor([list(self.kinds).index(self.kind_of(region))])
        direction = self.direction(finding, region)[None].to(self.device)
        _, shares = self.clip.contributions(self.pixels(hu, region)[None], kind, direction)
        fine = functional.interpolate(shares.clamp_min(0), size=hu.shape, mode="trilinear", align_corners=False)[0, 0]
        return np.asarray((fine / fine.max().clamp_min(1e-9)).cpu().numpy(), dtype=np.float32)


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 4), now


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
