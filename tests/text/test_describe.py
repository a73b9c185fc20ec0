"""Side, lobe and size of each naming of a finding."""

import pytest

from medvl.text.describe import describe
from medvl.text.ontology import load_ontology

CHEST = load_ontology("chest")


@pytest.mark.parametrize(
    ("text", "side", "lobe", "sizes"),
    [
        ("A 10 mm right middle lobe nodule, previously measured 23 mm.", "right", "middle", (10.0,)),
        ("A nodule of 5 mm (4 mm in the previous examination) in the upper lobe of the left lung.", "left", "upper", (5.0,)),
        ("Nodules of 2-3 mm in both lung bases.", "both", "lower", (3.0,)),
        ("Nodule of 1.2 x 0.8 cm in the lingula of the left lung.", "left", "upper", (12.0,)),
        ("A pulmonary nodule (3:23; 4:7) of 3 mm at the right apex.", "right", "upper", (3.0,)),
        ("A nodule is seen in the lung.", None, None, ()),
    ],
)
def test_places_and_sizes(text: str, side: str | None, lobe: str | None, sizes: tuple[float, ...]) -> None:
    (one,) = describe(text, CHEST)
    assert (one.finding, one.status, one.side, one.lobe, one.sizes_mm) == ("lung_nodule", 1, side, lobe, sizes)


def test_a_finding_takes_the_nearest_place() -> None:
    found = describe("Atelectasis in the right lower lobe, consolidation of 3 cm in the left upper lobe.", CHEST)
    assert [(d.finding, d.side, d.lobe, d.sizes_mm) for d in found] == [
        ("atelectasis", "right", "lower", ()),
        ("consolidation", "left", "upper", (30.0,)),
    ]


def test_one_finding_on_two_sides_is_on_both() -> None:
    (one,) = describe("Small right and trace left pleural effusions.", CHEST)
    assert one.side == "both"


def test_absent_findings_have_no_size() -> None:
    (one,) = describe("No nodule larger than 4 mm in the right lung.", CHEST)
    assert (one.status, one.sizes_mm, one.side) == (0, (), "right")
