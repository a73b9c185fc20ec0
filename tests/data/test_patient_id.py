"""Patient numbers as keyed hashes: the same for one patient, nothing for a number that names nobody."""

from pathlib import Path

import pytest

from medvl.data.identity import folder_key, patient_id

KEY = bytes(range(32))


def test_one_patient_one_hash_and_another_under_another_key() -> None:
    assert patient_id(KEY, "MRN-0012 ") == patient_id(KEY, "MRN-0012")
    assert patient_id(KEY, "MRN-0012") != patient_id(KEY, "MRN-0013")
    assert patient_id(KEY, "MRN-0012") != patient_id(bytes(32), "MRN-0012")
    assert "0012" not in str(patient_id(KEY, "MRN-0012"))


@pytest.mark.parametrize("number", ["", "  ", "0", "0000", "ANONYMOUS", "anonymized", "Unknown", "N/A", "---", "none"])
def test_numbers_that_many_share_are_none(number: str) -> None:
    assert patient_id(KEY, number) is None


def test_the_key_of_a_folder_is_made_once(tmp_path: Path) -> None:
    assert folder_key(tmp_path / "key") == folder_key(tmp_path / "key")
