"""A region painted alone shows what the whole scan shows there, at its edges too."""

import numpy as np

from medvl.geometry import Geometry
from medvl.imaging.phantom.anatomy import DIAPHRAGM_Z_MM, build
from medvl.imaging.phantom.render import HEART_BELOW_MM, region_centers, render
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.shapes import Canvas, Ellipsoid


def test_a_lone_crop_below_the_diaphragm_shows_the_heart_that_reaches_into_it() -> None:
    """The part of the heart in a kidney's crop is what the whole scan shows there."""
    number = next(n for n in range(400) if _lowest_heart(n) < 70)
    patient = sample_patient(7, number)
    x, y, _ = region_centers(patient)["chest"]
    low = Geometry.centered((x, y, 66.0), (8, 60, 70), (3.0, 2.0, 2.0))
    tall = Geometry.centered((x, y, 66.0 + 24.0), (24, 60, 70), (3.0, 2.0, 2.0))
    lone, whole = render(patient, low, noise=False).hu, render(patient, tall, noise=False)
    z_low = low.to_lps([[k, 0, 0] for k in range(8)])[:, 2]
    z_tall = whole.geometry.to_lps([[k, 0, 0] for k in range(24)])[:, 2]
    same = [int(np.argmin(np.abs(z_tall - z))) for z in z_low]
    np.testing.assert_allclose(lone, whole.hu[same], atol=1)


def _lowest_heart(number: int) -> float:
    anatomy = build(sample_patient(7, number))
    solid = anatomy.pericardial or anatomy.heart
    turn = np.eye(3) if solid.turn is None else solid.turn
    return float(solid.center[2] - np.sqrt(((turn[2] * (solid.radii + 5)) ** 2).sum()))


def test_no_heart_reaches_below_where_it_is_left_out() -> None:
    lowest = min(_lowest_heart(number) - sample_patient(7, number).scanner.thickness_mm for number in range(300))
    assert DIAPHRAGM_Z_MM - HEART_BELOW_MM < lowest < DIAPHRAGM_Z_MM - 30


def test_coverage_of_a_ball_is_its_volume_whether_sampled_or_by_its_edge() -> None:
    """Against the exact volume; small balls are averaged over sub-voxels, large ones by the distance to their surface."""
    grid = Geometry.centered((0, 0, 0), (41, 61, 63), (2.0, 1.5, 1.3))
    for turn in (None, np.eye(3)):
        for radius in (2.5, 3.4, 11.0, 22.0):
            canvas = Canvas.over(grid, 2.0, 3.0)
            found = Ellipsoid(np.array([1.0, -2.0, 3.0]), np.full(3, radius), turn).coverage(canvas)
            assert found is not None
            assert found[1].min() >= 0 and found[1].max() <= 1
            volume = float(found[1].sum()) * 2.0 * 1.5 * 1.3
            np.testing.assert_allclose(volume, 4 / 3 * np.pi * radius**3, rtol=0.12 if radius < 3 else 0.03)
