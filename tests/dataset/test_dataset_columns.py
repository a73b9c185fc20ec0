"""Columns are found by name, by synonyms and as told; what is not sure is asked, and what is not known is said."""

import pytest

from medvl.dataset.columns import Label, map_columns, parse_map, plain
from medvl.errors import ConfigError


def test_hospital_names_are_taken_and_told() -> None:
    mapped = map_columns(
        ["Pat. ID", "DICOM-Pfad", "Pfad", "Befundtext", "Geschlecht", "OS_months", "Renal mass", "Nachname", "BMI"]
    )
    assert mapped.fields == {
        "patient_id": ("Pat. ID",),
        "study": ("Pfad",),
        "report": ("Befundtext",),
        "sex": ("Geschlecht",),
        "time_months": ("OS_months",),
    }
    assert mapped.labels == (Label("Renal mass", "renal_mass", ""),)
    assert (mapped.identifiers, mapped.clinical, mapped.ignored) == (("Nachname",), {"bmi": "BMI"}, ("DICOM-Pfad",))
    assert "column 'Pat. ID': taken as patient_id" in mapped.told


def test_what_is_misspelt_is_asked_and_not_taken() -> None:
    mapped = map_columns(["PatID", "study", "Rep0rt", "label_renal_cyst@kidney_left"])
    assert "report" not in mapped.fields
    assert "column 'Rep0rt' is not known, did you mean report? --map report=Rep0rt" in mapped.told
    assert mapped.labels == (Label("label_renal_cyst@kidney_left", "renal_cyst", "kidney_left"),)


def test_what_is_told_stands_above_names() -> None:
    told = parse_map(["report=Text 2", "label_renal_mass=Tumour?", "clinical_hb=Hb (g/dl)", "identifier=Room", "ignore=report"])
    mapped = map_columns(["patient_id", "study", "report", "Text 2", "Tumour?", "Hb (g/dl)", "Room"], told)
    assert mapped.fields["report"] == ("Text 2",)
    assert (mapped.labels[0].finding, mapped.clinical, mapped.identifiers) == ("renal_mass", {"hb": "Hb (g/dl)"}, ("Room",))


def test_two_columns_that_may_be_the_patient_leave_one_as_an_identifier() -> None:
    mapped = map_columns(["mrn", "patient_id", "study"])
    assert (mapped.fields["patient_id"], mapped.identifiers) == (("patient_id",), ("mrn",))
    assert any("--map patient_id=mrn" in line for line in mapped.told)


def test_keys_of_findings_lists_are_labels_too() -> None:
    mapped = map_columns(["patient", "ct", "renal_mass_large"], aliases={"renal_mass_large": "mass_large"})
    assert mapped.labels == (Label("renal_mass_large", "mass_large", ""),)


@pytest.mark.parametrize(
    ("columns", "maps", "message"),
    [
        (
            ["patient_id", "stduy"],
            [],
            "no column for study; name it with --map study=COLUMN\ncolumn 'stduy' is not known, did you mean",
        ),
        (["patient_id", "study", "label_renal_mas"], [], "no finding is called 'renal_mas'; did you mean 'renal_mass'?"),
        (["patient_id", "study", "label_renal_mass@chest"], [], "renal_mass@chest"),
        (["patient_id", "study"], ["reprot=study"], "--map knows no 'reprot'; did you mean 'report'?"),
        (["patient_id", "study"], ["report=x"], "no column 'x'"),
        (["patient_id", "study", "clinical_seed"], [], "cannot be called 'seed'"),
        (["patient_id", "study", "renal_mass", "Renal-Mass"], [], "labelled twice"),
    ],
)
def test_what_cannot_be_is_an_error(columns: list[str], maps: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        map_columns(columns, parse_map(maps))
    assert message in str(caught.value)


def test_maps_need_both_sides() -> None:
    with pytest.raises(ConfigError, match="WANTED=COLUMN"):
        parse_map(["report"])


def test_plain_names() -> None:
    assert plain("Größe (cm)") == plain("grosse CM")
