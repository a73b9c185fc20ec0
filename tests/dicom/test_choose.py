"""Which series of a study is taken, and what is said about each."""

from dataclasses import replace

import pytest

from medvl.dicom.choose import Want, choose
from medvl.dicom.series import Scan, Series
from medvl.geometry import Geometry
from medvl.records import Reason


def series(key: str, *, n: int = 120, step: float = 2.5, reasons: tuple[Reason, ...] = (), **facts: object) -> Series:
    geometry = Geometry.centered((5, -20, 300), (n, 40, 44), (step, 0.8, 0.7))
    return Series(key, "study", "CT", n, "volume", reasons, geometry, {"image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], **facts})


def chosen(*candidates: Series, want: Want | None = None) -> str | None:
    forwards, backwards = choose(candidates, want), choose(candidates[::-1], want)
    assert forwards.key == backwards.key
    return forwards.key


def test_refused_series_are_never_chosen_and_say_why() -> None:
    refused = replace(series("a"), verdict="refused", reasons=(Reason("missing_slice", "one of 5 mm"),))
    choice = choose(Scan((refused,)))
    assert choice.key is None
    assert choice.chosen is None
    assert choice.series[0].why == "refused: one of 5 mm"


def test_the_thinner_of_two_alike_is_chosen() -> None:
    assert chosen(series("thick", n=60, step=5.0), series("thin", n=120, step=2.5)) == "thin"


def test_more_body_beats_thinner_slices() -> None:
    assert chosen(series("short", n=25, step=1.0), series("long", n=120, step=3.0)) == "long"


def test_soft_kernel_unless_sharp_is_wanted() -> None:
    pair = (series("soft", kernel="B30f"), series("sharp", kernel="B70f"))
    assert chosen(*pair) == "soft"
    assert chosen(*pair, want=Want(kernel="sharp")) == "sharp"


@pytest.mark.parametrize(("soft", "sharp"), [("STANDARD", "LUNG"), ("Br38f\\3", "Bl57f\\3"), ("FC08", "FC51"), ("B", "YC")])
def test_kernel_names_of_four_makers(soft: str, sharp: str) -> None:
    assert chosen(series("a", kernel=sharp), series("b", kernel=soft)) == "b"


def test_contrast_and_phase_as_wanted() -> None:
    native = series("native", contrast=False, phase_hints=["native"])
    portal = series("portal", contrast=True, phase_hints=["portal_venous"])
    late = series("late", contrast=True, phase_hints=["delayed"])
    assert chosen(native, portal, late, want=Want(contrast=True, phase="portal_venous")) == "portal"
    assert chosen(native, portal, late, want=Want(contrast=False)) == "native"
    assert chosen(native, portal, late, want=Want(contrast=True, phase="delayed")) == "late"


def test_projections_and_other_planes_come_last() -> None:
    slabs = series("slabs", step=1.0, n=300, reasons=(Reason("projection", "MIP"),))
    affine = series("x").geometry.affine_lps[:, [1, 0, 2, 3]]  # type: ignore[union-attr]
    coronal = replace(series("coronal"), geometry=Geometry((200, 120, 220), affine))
    assert coronal.geometry is not None
    assert coronal.geometry.axes == "PSL"
    assert chosen(slabs, coronal, series("axial")) == "axial"


def test_every_series_gets_a_sentence_with_its_values() -> None:
    choice = choose([series("a", kernel="STANDARD", contrast=True), series("b", n=60, step=5.0)])
    first, second = choice.series
    assert (first.key, second.key) == ("a", "b")
    assert first.why.startswith("chosen: 300 mm in 120 slices, axial, 2.5 mm apart")
    assert "soft kernel (STANDARD)" in first.why
    assert first.why.endswith("contrast")
    assert second.why.startswith("number 2 of 2")
    assert choose([series("a")]).series[0].why.startswith("the only volume")
