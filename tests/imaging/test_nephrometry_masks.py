"""R.E.N.A.L. parts of masks: bean-shaped kidneys with balls in them, against where the balls were put."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.kidney_anatomy import Rules, hull
from medvl.imaging.mask_shape import KIDNEY, TUMOUR, KidneyMask, split_kidneys
from medvl.imaging.nephrometry import Nephrometry, nephrometry
from medvl.renal_score import COUNTING, growth_class, nearness_class, points, polar_class, radius_class, score_of
from medvl.text.ontology import built_in

RADII = np.array([24.0, 22.0, 52.0])
SINUS = (12.0, 8.0, 22.0)
FAST = Rules(grid_mm=2.0)


def turned(degrees: float) -> NDArray[np.float64]:
    """A rotation about the patient's x, then z."""
    a, b = np.radians(degrees), np.radians(degrees / 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]]) @ about_x


def kidney_with(
    ball: tuple[float, float, float] | None,
    radius: float = 10.0,
    *,
    spacing: tuple[float, float, float] = (2.0, 1.6, 1.6),
    turn: float = 0.0,
    side: str = "left",
) -> KidneyMask:
    """An ellipsoid with a hilum towards the midline and a ball; places are (medial, anterior, up) in mm from its centre."""
    g = Geometry.centered((0, 0, 0), tuple(int(n / s) for n, s in zip((150, 130, 130), spacing, strict=True)), spacing)
    medial = -1.0 if side == "left" else 1.0
    at = (g.to_lps(np.moveaxis(np.indices(g.shape_dhw), 0, -1)) @ turned(turn)) * np.array([medial, -1, 1])
    labels = np.where(((at / RADII) ** 2).sum(-1) <= 1, KIDNEY, 0).astype(np.uint8)
    labels[(((at - (24, 0, 0)) / np.array(SINUS)) ** 2).sum(-1) <= 1] = 0
    if ball is not None:
        labels[((at - np.array(ball)) ** 2).sum(-1) <= radius**2] = TUMOUR
    return KidneyMask("left" if side == "left" else "right", labels, g, False, False)


def scored(ball: tuple[float, float, float], radius: float = 10.0, **changes: object) -> Nephrometry:
    return nephrometry(kidney_with(ball, radius, **changes), FAST)  # type: ignore[arg-type]


def test_points_are_those_of_the_dictionary_of_texts() -> None:
    dictionary = built_in()[0].dictionary
    for attribute, classes in COUNTING.items():
        assert {c: points(attribute, c) for c in classes} == dictionary[attribute]["points"]
    assert points("renal_radius", None) is None


def test_cuts_are_the_published_ones() -> None:
    assert [radius_class(mm)[:7] for mm in (40, 40.1, 69.9, 70)] == ["at_most", "between", "between", "at_leas"]
    assert [nearness_class(mm)[:7] for mm in (0, 4, 4.1, 6.9, 7)] == ["at_most", "at_most", "between", "between", "at_leas"]
    assert [growth_class(s) for s in (0.5, 0.49, 0.0)] == ["mostly_exophytic", "partly_exophytic", "endophytic"]
    assert [polar_class(*s) for s in ((0.0, False), (0.3, False), (0.5, False), (0.51, False), (0.3, True), (1.0, False))] == [
        "outside",
        "crosses",
        "crosses",
        "between",
        "between",
        "between",
    ]


@pytest.mark.parametrize(
    ("total", "name"), [(4, "low"), (6, "low"), (7, "moderate"), (9, "moderate"), (10, "high"), (12, "high")]
)
def test_complexity(total: int, name: str) -> None:
    worth = [1 + (total - 4 > k) + (total - 4 > k + 4) for k in range(4)]
    classes = {a: COUNTING[a][p - 1] for a, p in zip(COUNTING, worth, strict=True)}
    got = score_of(classes, None, "")
    assert (got.total, got.complexity) == (total, name)


@pytest.mark.parametrize("depth", [-12.0, -5.0, 0.0, 5.0, 12.0])
def test_share_outside_is_the_cap_beyond_the_surface(depth: float) -> None:
    # a ball on the lateral pole, where the surface is nearly flat over it: the share outside is that of a spherical cap
    r = 10.0
    got = scored((-(RADII[0] + depth), 0.0, 0.0), r)
    inside = 0.0 if depth >= r else 1.0 if depth <= -r else (r - depth) ** 2 * (2 * r + depth) / (4 * r**3)
    assert got.share_outside == pytest.approx(1 - inside, abs=0.13)
    expected = growth_class(1 - inside) if depth else got.classes["mass_growth"]
    assert got.classes["mass_growth"] == expected


def test_radius_is_the_diameter() -> None:
    for radius, worth in ((18.5, 1), (22.0, 2), (37.0, 3)):
        got = scored((-20.0, 10.0, 20.0), radius)
        assert got.diameter_mm == pytest.approx(2 * radius, abs=2.5)
        assert got.score.radius == worth


def test_nearness_is_the_gap_to_the_hilum() -> None:
    for gap in (0.0, 5.5, 10.0, 14.0):
        got = scored((24 - SINUS[0] - gap - 10.0, 0.0, 0.0))
        assert got.sinus_mm == pytest.approx(gap, abs=1.5)
    assert scored((-8.0, 0.0, 40.0), 6.0).sinus_mm > 12


def test_face() -> None:
    assert scored((0.0, 14.0, 5.0)).score.face == "a"
    assert scored((0.0, -14.0, 5.0)).score.face == "p"
    assert scored((-18.0, 1.0, 5.0)).score.face == "x"


def test_polar_lines() -> None:
    assert scored((-5.0, 5.0, 42.0), 8.0).classes["mass_polar_lines"] == "outside"
    assert scored((-5.0, 5.0, -42.0), 8.0).score.location == 1
    assert scored((-5.0, 5.0, 17.0), 8.0).classes["mass_polar_lines"] == "crosses"
    assert scored((-5.0, 5.0, 2.0), 8.0).score.location == 3


@pytest.mark.parametrize("changes", [{"side": "right"}, {"turn": 25.0}, {"turn": -20.0}, {"spacing": (5.0, 0.9, 0.9)}])
def test_side_pose_and_slices_do_not_matter(changes: dict[str, object]) -> None:
    place = (-14.0, 15.0, 14.0)
    plain, other = scored(place, 14.0), scored(place, 14.0, **changes)
    assert str(other.score) == str(plain.score)
    assert other.share_outside == pytest.approx(plain.share_outside, abs=0.04)
    assert other.sinus_mm == pytest.approx(plain.sinus_mm, abs=2.1)
    assert other.share_between == pytest.approx(plain.share_between, abs=0.15)
    assert other.share_anterior == pytest.approx(plain.share_anterior, abs=0.04)


def test_storage_does_not_matter() -> None:
    kidney = kidney_with((-10.0, 12.0, 14.0), 12.0)
    affine = kidney.geometry.affine_lps[:, [2, 0, 1, 3]].copy()
    labels = np.flip(kidney.labels.transpose(2, 0, 1), 1)
    affine[:3, 3] += affine[:3, 1] * (labels.shape[1] - 1)
    affine[:3, 1] *= -1
    mine = nephrometry(kidney, FAST)
    other = nephrometry(replace(kidney, labels=labels, geometry=Geometry(labels.shape, affine)), FAST)
    assert str(other.score) == str(mine.score)
    for name in ("diameter_mm", "share_outside", "sinus_mm", "share_anterior", "share_between", "kidney_ml", "sinus_ml"):
        assert getattr(other, name) == pytest.approx(getattr(mine, name), rel=5e-3), name  # centres on a border fall either way


def test_hull_is_the_convex_hull() -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((11, 13, 17), bool)
    mask[tuple(rng.integers(2, 9, size=(3, 12)))] = True
    from scipy.spatial import ConvexHull

    planes = ConvexHull(np.argwhere(mask)).equations
    index = np.moveaxis(np.indices(mask.shape), 0, -1)
    expected = (index @ planes[:, :3].T + planes[:, 3] <= 0.5 + 1e-9).all(-1)
    assert np.array_equal(hull(mask), expected)
    assert (hull(mask) >= mask).all()


def test_nothing_is_answered_in_silence() -> None:
    whole = kidney_with((-20.0, 0.0, 0.0))
    none = nephrometry(kidney_with(None), FAST)
    assert (none.score.total, str(none.score), none.n_tumours) == (None, "no tumour is in the mask", 0)
    cut = nephrometry(replace(whole, tumour_touches_edge=True), FAST)
    assert str(cut.score) == "the mask does not give radius, exophytic, nearness, location"
    assert set(cut.unknown.values()) == {"the tumour reaches the edge of the image"}
    edge = nephrometry(replace(whole, touches_edge=True), FAST)
    assert edge.score.radius == 1
    assert edge.unknown["mass_growth"] == "the kidney reaches the edge of the image"
    assert "joined" in nephrometry(replace(whole, joined=True)).unknown["mass_nearness"]
    rest = replace(whole, labels=np.where((whole.labels == KIDNEY) & (np.indices(whole.labels.shape)[0] > 20), 0, whole.labels))
    assert "fewer than 20" in nephrometry(rest).unknown["mass_face"]
    filled = nephrometry(replace(whole, labels=np.where(whole.labels == 0, 3, whole.labels)), FAST)
    assert filled.score.exophytic is not None
    assert filled.score.total is None
    assert "sinus" in filled.unknown["mass_nearness"]
    assert filled.classes["mass_face"] is not None


def test_a_round_kidney_has_no_poles() -> None:
    g = Geometry.centered((0, 0, 0), (50, 50, 50), (2.0, 2.0, 2.0))
    at = g.to_lps(np.moveaxis(np.indices(g.shape_dhw), 0, -1))
    labels = np.where((at**2).sum(-1) <= 35**2, KIDNEY, 0).astype(np.uint8)
    labels[((at - (0, 30, 0)) ** 2).sum(-1) <= 100] = TUMOUR
    got = nephrometry(KidneyMask("left", labels, g, False, False), FAST)
    assert "no long axis" in got.unknown["mass_polar_lines"]
    assert got.score.face is None


def test_bad_rules_are_refused() -> None:
    with pytest.raises(ConfigError, match="grid_mm is 0"):
        Rules(grid_mm=0)
    with pytest.raises(ConfigError, match="face_share"):
        Rules(face_share=0.4)


@pytest.mark.data
def test_real_kidneys(shared_data) -> None:
    from medvl.imaging.nifti import read_labels

    folder = shared_data / "kits23" / "grid3mm"
    if not folder.is_dir():
        pytest.skip("no KiTS23 masks")
    labels, geometry = read_labels(folder / "case_00000.nii.gz")
    right, left = split_kidneys(labels, geometry)
    got = nephrometry(right, FAST)
    assert (right.side, left.side, got.n_tumours, nephrometry(left).n_tumours) == ("right", "left", 1, 0)
    assert got.diameter_mm == pytest.approx(28, abs=6)  # 2.4 cm by the radiologist, 2.8 cm in the plane of the slices
    assert got.score.total is not None
