"""The preprocessing contract: its JSON and hash, and the one path to a model input."""

import hashlib
import json

import numpy as np
import pytest
from sitk_oracle import resampled

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.preprocess import Contract, ModelInput, RegionSpec, preprocess, to_hu_grid, window
from medvl.records import Volume

KIDNEY = RegionSpec("kidney", (12, 14, 10), (2.0, 1.5, 1.25), ((-160.0, 240.0), (-1000.0, 400.0)))
HEART = RegionSpec("heart", (8, 9, 10), (3.0, 3.0, 3.0), ((-200.0, 600.0),))
CONTRACT = Contract((KIDNEY, HEART))


def scan(affine=None):
    shape = (25, 37, 41)
    values = np.random.default_rng(2).integers(-1000, 800, shape).astype(np.int16)
    return Volume(values, Geometry.centered((5, -8, 40), shape, (2.5, 2.0, 1.9)) if affine is None else Geometry(shape, affine))


def test_json_round_trip_keeps_contract_and_hash():
    text = json.dumps(CONTRACT.to_json())
    again = Contract.from_json(json.loads(text))
    assert again == CONTRACT
    assert again.hash == CONTRACT.hash
    assert CONTRACT.to_json()["axes"] == "SPL"


def test_hash_is_sha256_of_canonical_json():
    canonical = (
        '{"axes":"SPL","fill_hu":-1024.0,"regions":[{"grid_dhw":[8,9,10],"name":"heart","spacing_mm":[3.0,3.0,3.0],'
        '"windows_hu":[[-200.0,600.0]]}],"version":1}'
    )
    assert Contract((HEART,)).hash == hashlib.sha256(canonical.encode()).hexdigest()


def test_whole_numbers_and_lists_give_the_same_hash():
    same = RegionSpec("heart", [8, 9, 10], [3, 3, 3], [[-200, 600]])
    assert same == HEART
    assert Contract([KIDNEY, same], -1024).hash == CONTRACT.hash


@pytest.mark.parametrize(
    "other",
    [
        Contract((HEART, KIDNEY)),
        Contract((KIDNEY, HEART), fill_hu=-1000),
        Contract((KIDNEY,)),
        Contract((RegionSpec("kidney", (12, 14, 10), (2.0, 1.5, 1.26), KIDNEY.windows_hu), HEART)),
        Contract((RegionSpec("kidney", (12, 14, 10), (2.0, 1.5, 1.25), KIDNEY.windows_hu[::-1]), HEART)),
    ],
)
def test_any_change_changes_the_hash(other):
    assert other.hash != CONTRACT.hash


def test_lookup_by_name():
    assert CONTRACT["heart"] is HEART
    with pytest.raises(ConfigError, match=r"no region 'liver'.*kidney, heart"):
        CONTRACT["liver"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", (1, 1, 1), (1, 1, 1), ((0, 1),)), "no name"),
        (("a", (1, 0, 1), (1, 1, 1), ((0, 1),)), "grid_dhw"),
        (("a", (1, 1), (1, 1, 1), ((0, 1),)), "grid_dhw"),
        (("a", (1, 1, 1), (1, float("nan"), 1), ((0, 1),)), "spacing_mm"),
        (("a", (1, 1, 1), (1, 1, 1), ((1, 1),)), "windows_hu"),
        (("a", (1, 1, 1), (1, 1, 1), ()), "windows_hu"),
    ],
)
def test_bad_regions_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        RegionSpec(*arguments)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"axes": "RAS"}, "axes 'SPL'"),
        ({"version": 2}, "version 2"),
        ({"fill_hu": -1000.5}, "whole number"),
        ({"regions": []}, "different names"),
        ({"regions": [1]}, "must be a mapping"),
        ({"regions": [{"name": "a"}]}, "missing keys"),
        ({"regions": [CONTRACT.to_json()["regions"][0] | {"grid_dhw": "abc"}]}, "malformed"),
        ({"extra": 1}, r"unknown keys \['extra'\]"),
    ],
)
def test_bad_contracts_are_refused(change, says):
    with pytest.raises(ConfigError, match=says):
        Contract.from_json(CONTRACT.to_json() | change)


def test_window_maps_low_to_zero_and_high_to_one():
    hu = np.array([-2000, -160, 40, 240, 3000], np.int16).reshape(1, 1, 5)
    found = window(hu, ((-160.0, 240.0), (-1000.0, 1000.0)))
    assert found.dtype == np.float32
    assert found.shape == (2, 1, 1, 5)
    np.testing.assert_allclose(found[0].ravel(), [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(found[1].ravel(), [0, 0.42, 0.52, 0.62, 1], atol=1e-6)


def test_training_and_inference_paths_give_the_same_bytes():
    center = (3.0, -4.0, 38.0)
    made = preprocess(scan(), center, KIDNEY)
    cached = window(to_hu_grid(scan(), KIDNEY.geometry(center)), KIDNEY.windows_hu)
    np.testing.assert_array_equal(made.pixels, cached)
    assert made.pixels.dtype == np.float32
    assert made.pixels.shape == (2, 12, 14, 10)


def test_pixels_agree_with_simpleitk():
    spec = RegionSpec("fine", (12, 14, 10), (2.0, 1.5, 1.25), ((-1000.0, 800.0),))
    made = preprocess(scan(), (3.0, -4.0, 38.0), spec)
    expected = resampled(scan().hu, scan().geometry.affine_lps, spec.grid_dhw, made.geometry.affine_lps)
    np.testing.assert_allclose(made.pixels[0], (expected + 1000) / 1800, atol=0.51 / 1800)


def test_one_patient_stored_in_any_axis_order_gives_one_input():
    volume = scan()
    affine = volume.geometry.affine_lps[:, [1, 2, 0, 3]].copy()
    turned = np.ascontiguousarray(volume.hu.transpose(1, 2, 0)[:, ::-1])
    affine[:3, 3] += affine[:3, 1] * (turned.shape[1] - 1)
    affine[:3, 1] *= -1
    other = Volume(turned, Geometry(turned.shape, affine))
    assert other.geometry.axes == "PRS"
    first, second = (preprocess(v, (3.0, -4.0, 38.0), KIDNEY).pixels for v in (volume, other))
    np.testing.assert_allclose(first, second, atol=1.01 / 400)


def test_coverage_and_fill_outside_the_scan():
    volume = scan()
    border = volume.geometry.center_lps + np.array([0, 0, volume.geometry.extent_mm[0] / 2])
    made = preprocess(volume, border, KIDNEY)
    assert made.covered == pytest.approx(0.5)
    assert (made.pixels[:, 6:] == 0).all()
    assert made.pixels[:, :6].std() > 0
    assert preprocess(volume, (900, 0, 0), KIDNEY).covered == 0
    assert preprocess(volume, volume.geometry.center_lps, KIDNEY).covered == 1


def test_contract_stamps_its_hash():
    made = CONTRACT.apply(scan(), (3.0, -4.0, 38.0), "kidney")
    assert isinstance(made, ModelInput)
    assert made.contract_hash == CONTRACT.hash
    np.testing.assert_array_equal(made.pixels, preprocess(scan(), (3.0, -4.0, 38.0), KIDNEY).pixels)
    assert preprocess(scan(), (3.0, -4.0, 38.0), KIDNEY).contract_hash == ""


def test_hu_grid_is_int16_and_saturates():
    values = np.full((5, 7, 11), 4e4, np.float32)
    grid = to_hu_grid(
        Volume(values, Geometry.centered((0, 0, 0), (5, 7, 11), (2.5, 0.8, 0.7))),
        Geometry.centered((0, 0, 0), (2, 3, 4), (1, 1, 1)),
    )
    assert grid.dtype == np.int16
    assert (grid == 32767).all()
