"""Maps of a free direction: the same as those of a finding asked that way, and their places add up to the margin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import scan_of

from medvl.imaging.phantom.truth import Patient
from medvl.inference.free_heat import heat_along, read_region
from medvl.inference.predictor import Predictor

REGION = "kidney_left"


def test_a_finding_as_a_direction_gives_the_findings_own_map(predictor: Predictor, who: Patient) -> None:
    scan = scan_of(who)
    region = predictor.prepare(scan).regions[REGION]
    asked = predictor.answering.asked(REGION)[0]
    reading = read_region(predictor, scan, REGION, region.geometry)
    heat = heat_along(predictor, reading, predictor.answering.direction(asked, REGION).numpy())
    np.testing.assert_allclose(heat, predictor.heat(asked, region), atol=1e-5)
    assert heat.shape == region.geometry.shape_dhw
    expected = predictor.read([region.hu], [REGION]).embedding[0].numpy()
    np.testing.assert_allclose(reading.embedding, expected, atol=1e-5)


def test_places_add_up_to_the_product_but_for_a_constant(predictor: Predictor, who: Patient) -> None:
    region = predictor.prepare(scan_of(who)).regions[REGION]
    reading = read_region(predictor, scan_of(who), REGION, region.geometry)
    directions = torch.from_numpy(np.random.default_rng(4).normal(size=(2, 16)).astype(np.float32))
    shares = predictor.answering.shares(directions, reading.encoded, predictor.number_of(REGION))[0].sum((1, 2, 3)).numpy()
    clip = predictor.clip
    kind = predictor.number_of(REGION)
    bias = clip.image_projection[kind].bias
    with torch.no_grad():
        raw = clip.image_projection[kind](clip.pool(reading.encoded, torch.tensor([kind])))[0]
        constant = 0.0 if bias is None else (directions @ bias / raw.norm()).numpy()
    assert shares + constant == pytest.approx(directions.numpy() @ reading.embedding, abs=1e-4)
