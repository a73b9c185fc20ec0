"""Findings explained together are explained as each would be alone: against a plain way that reads one region at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import scan_of
from torch.nn import functional

from medvl.imaging.phantom.truth import Patient
from medvl.inference.chunks import parts
from medvl.inference.predictor import CaseResult, FindingResult, Predictor, RegionResult

RADIUS, SEEN = 16.0, 3


def plain_heat(predictor: Predictor, found: FindingResult, region: RegionResult) -> NDArray[np.float32]:
    """One finding from its own reading of the region."""
    clip = predictor.clip.eval()
    kind = torch.tensor([[region.name in names for names in predictor.kinds.values()].index(True)])
    direction = predictor.answering.direction(found.finding, region.name)[None]
    with torch.no_grad():
        shares = clip.contributions(predictor.pixels(region.hu, region.name)[None], kind, direction)[1]
    fine = functional.interpolate(shares.clamp_min(0), size=region.hu.shape, mode="trilinear", align_corners=False)[0, 0]
    return np.asarray(fine / fine.max())


def plain_score(predictor: Predictor, found: FindingResult, region: RegionResult, hu: NDArray[np.int16]) -> float:
    """One finding from one reading of `hu`."""
    kind = [region.name in names for names in predictor.kinds.values()].index(True)
    answers = predictor.answering.read(predictor.pixels(hu, region.name)[None], kind).answers
    return float(found.calibration.probability(predictor.margin(found.finding, region.name, answers[0])))


def plain_ball(region: RegionResult, place: tuple[int, ...]) -> NDArray[np.int16]:
    d, h, w = ((np.arange(n) - c) * s for n, c, s in zip(region.hu.shape, place, region.geometry.spacing_mm, strict=True))
    away = np.sqrt(d[:, None, None] ** 2 + h[:, None] ** 2 + w**2)
    shell = region.hu[(away > RADIUS) & (away <= 1.5 * RADIUS)]
    return np.where(away <= RADIUS, np.int16(np.median(shell)), region.hu)


def plain_elsewhere(region: RegionResult, peak: tuple[int, ...]) -> list[tuple[int, ...]]:
    rng, places = np.random.default_rng(list(peak)), []
    for _ in range(200):
        place = tuple(int(rng.integers(n // 6, n - n // 6)) for n in region.hu.shape)
        if np.linalg.norm(np.subtract(place, peak) * region.geometry.spacing_mm) >= 2 * RADIUS:
            places.append(place)
    return places[:SEEN]


@pytest.fixture
def answered(predictor: Predictor, who: Patient) -> list[CaseResult]:
    """Two scans of one patient, answered together."""
    return predictor.answer([predictor.prepare(scan_of(who, spacing)) for spacing in ((5.0, 4.0, 4.0), (4.0, 3.0, 3.0))])


def test_together_as_alone(predictor: Predictor, answered: list[CaseResult]) -> None:
    n_shown = 0
    for result in answered:
        for found in result.findings:
            if found.heat is None:
                continue
            region, n_shown = result.regions[found.region], n_shown + 1
            heat = plain_heat(predictor, found, region)
            np.testing.assert_allclose(found.heat, heat, atol=1e-4)
            peak = tuple(int(i) for i in np.unravel_index(heat.argmax(), heat.shape))
            np.testing.assert_allclose(found.evidence.peak_lps, region.geometry.to_lps(peak), atol=0.006)
            scores = [
                plain_score(predictor, found, region, plain_ball(region, place))
                for place in (peak, *plain_elsewhere(region, peak))
            ]
            told = (found.evidence.before, found.evidence.after, found.evidence.control)
            plain = (plain_score(predictor, found, region, region.hu), scores[0], np.mean(scores[1:]))
            assert told == pytest.approx(plain, abs=1e-4)
    assert n_shown >= 4


def test_no_region_and_no_ball_is_read_twice(
    predictor: Predictor, answered: list[CaseResult], who: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    plain = predictor.clip.image.forward

    def watched(pixels: torch.Tensor) -> object:
        seen.extend(row.numpy().tobytes() for row in pixels)
        return plain(pixels)

    monkeypatch.setattr(predictor.clip.image, "forward", watched)
    result = predictor.predict(scan_of(who))
    shown = {(f.region, f.evidence.peak_lps) for f in result.findings if f.evidence}
    assert len(seen) <= 2 * len(result.regions) + (1 + SEEN) * len(shown)
    assert len({*seen}) >= len(seen) - 2  # one that is alone goes twice


def test_one_finding_asked_for_by_itself(predictor: Predictor, answered: list[CaseResult]) -> None:
    result = answered[0]
    found = next(f for f in result.findings if f.heat is not None)
    heat, evidence = predictor.explain(found.finding, result.regions[found.region])
    np.testing.assert_allclose(heat, found.heat, atol=1e-4)
    assert evidence.after == pytest.approx(found.evidence.after, abs=1e-4)
    np.testing.assert_array_equal(predictor.heat(found.finding, result.regions[found.region]), heat)


def test_bfloat16_says_nearly_the_same(predictor: Predictor, answered: list[CaseResult], monkeypatch: pytest.MonkeyPatch) -> None:
    result = answered[0]
    monkeypatch.setattr(predictor, "bf16", True)
    found = next(f for f in result.findings if f.heat is not None)
    heat, evidence = predictor.explain(found.finding, result.regions[found.region])
    assert np.isfinite(heat).all()
    assert evidence.after == pytest.approx(found.evidence.after, abs=0.05)
    assert evidence.after != found.evidence.after


@pytest.mark.parametrize(("n", "at_most"), [(0, 8), (1, 8), (8, 8), (9, 8), (31, 8), (33, 32)])
def test_parts_are_nearly_equal(n: int, at_most: int) -> None:
    found = parts(range(n), at_most)
    assert [i for part in found for i in part] == list(range(n))
    assert len(found) == -(-n // at_most)
    sizes = [len(part) for part in found]
    assert not sizes or (max(sizes) <= at_most and max(sizes) - min(sizes) <= 1)
