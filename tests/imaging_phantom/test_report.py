"""Phantom reports: true, limited to what the scan shows, varied, repeatable."""

import re
from dataclasses import replace

import numpy as np
import pytest

from medvl.imaging.phantom import wording, wording_trunk
from medvl.imaging.phantom.report import write_report
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.truth import Cyst, Kidney, Mass, Patient, Phase, Stone
from medvl.text.labels import measures
from medvl.text.report import split_sections

MASS = Mass(39.6, "upper", 0.7, "solid", True, True, "avid")


def _patient(coverage: str = "abdomen", phase: Phase = "arterial") -> Patient:
    patient = sample_patient(3, 1)
    left = Kidney("left", 111.0, MASS, (Cyst(14.0, "lower"),), (Stone(6.0, "lower"),), "severe")
    right = Kidney("right", 101.0, None, (), (), "none")
    scanner = replace(patient.scanner, coverage=coverage, phase=phase)
    return replace(patient, kidney_left=left, kidney_right=right, scanner=scanner)


def _report(patient: Patient, stream: int = 0) -> str:
    return write_report(patient, np.random.default_rng(stream))


def test_three_sections_and_no_identity() -> None:
    for stream in range(30):
        text = _report(_patient(), stream)
        assert list(split_sections(text)) == ["technique", "findings", "impression"]
        assert "PH0" not in text
        assert "Phantom" not in text


@pytest.mark.parametrize(
    ("coverage", "silent"), [("chest", r"kidney|renal|liver|spleen"), ("abdomen", r"heart|coronar|pericard|pleura")]
)
def test_nothing_is_said_of_what_the_scan_does_not_reach(coverage: str, silent: str) -> None:
    for stream in range(60):
        assert not re.search(silent, _report(_patient(coverage), stream), re.IGNORECASE)


@pytest.mark.parametrize(
    ("phase", "enhancement", "necrosis"),
    [("noncontrast", False, False), ("arterial", True, True), ("portal_venous", True, True), ("delayed", False, True)],
)
def test_enhancement_and_necrosis_are_stated_only_where_contrast_shows_them(
    phase: Phase, enhancement: bool, necrosis: bool
) -> None:
    texts = " ".join(split_sections(_report(_patient(phase=phase), stream))["findings"] for stream in range(60))
    assert bool(re.search(r"avid|hypervascular|hyperenhanc|briskly|marked enhancement", texts, re.IGNORECASE)) is enhancement
    assert bool(re.search(r"necro", texts, re.IGNORECASE)) is necrosis
    assert ("enhanc" in texts) is (phase != "noncontrast")


def test_the_technique_names_thickness_and_phase() -> None:
    patient = _patient(phase="delayed")
    for stream in range(20):
        technique = split_sections(_report(patient, stream))["technique"]
        assert f"{patient.scanner.thickness_mm:g} mm" in technique
        assert "delayed" in technique


def test_sizes_are_whole_mm_near_the_truth_and_on_the_true_side_of_the_cut() -> None:
    """A mass of 39.6 mm is not a large one, so nobody writes 40 mm or more about it."""
    wrote_mass_size = 0
    for stream in range(100):
        sections = split_sections(_report(_patient(), stream))
        sizes = {mm for _, _, mm in measures(sections["findings"] + " " + sections["impression"])}
        assert all(mm == int(mm) for mm in sizes)
        near = {mm for mm in sizes if 30 < mm < 60}
        assert near <= {37.0, 38.0, 39.0}, near
        wrote_mass_size += bool(near)
    assert wrote_mass_size == 100


def test_impression_repeats_the_main_findings() -> None:
    for stream in range(30):
        impression = split_sections(_report(_patient(), stream))["impression"].lower()
        assert re.search(r"mass|tumou?r|neoplasm|lesion", impression)
        assert re.search(r"hydronephro|dilatation", impression)
        assert re.search(r"stone|calcul|lithiasis", impression)
        assert "left" in impression


def test_same_generator_same_report_and_otherwise_varied() -> None:
    patient = _patient()
    assert _report(patient, 5) == _report(patient, 5)
    assert len({_report(patient, stream) for stream in range(50)}) == 50


def test_enough_ways_to_say_each_thing() -> None:
    present = [wording.MASS_OPEN, wording.CYST_OPEN, wording.STONE_OPEN, wording.HYDRO_OPEN]
    present += [
        wording_trunk.CORONARY,
        wording_trunk.CARDIOMEGALY,
        wording_trunk.PERICARDIAL,
        wording_trunk.ANEURYSM,
        wording_trunk.EFFUSION,
    ]
    absent = [
        wording.ABSENT_LIST,
        wording.ABSENT_BOTH,
        *wording.ABSENT_ONE.values(),
        wording_trunk.NO_CORONARY,
        wording_trunk.NO_CARDIOMEGALY,
    ]
    absent += [wording_trunk.NO_PERICARDIAL, wording_trunk.NO_ANEURYSM, wording_trunk.NO_EFFUSION, wording_trunk.NO_EFFUSION_SIDE]
    assert min(len(set(phrases)) for phrases in present) >= 8
    assert min(len(set(phrases)) for phrases in absent) >= 6
    assert min(len(set(phrases)) for phrases in wording.MASS_DETAIL.values()) >= 7


def test_no_slot_is_left_open_and_articles_fit() -> None:
    for number in range(200):
        text = write_report(sample_patient(4, number), np.random.default_rng(number))
        assert not re.search(r"[{}]|  |\b[Aa] (?:8|11|endo|exo|avid|inter)|\b[Aa]n (?:solid|cyst|mild|hyper)", text), text
