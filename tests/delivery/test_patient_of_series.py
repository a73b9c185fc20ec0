"""The record of a series names its patient by a hash only, the same for another series of the patient under the same key."""

from pathlib import Path

import finished

from medvl.imaging.load import load
from medvl.inference.results import series_record

KEY = bytes(range(32))


def patient(folder: Path, key: bytes = KEY) -> str | None:
    return series_record(load(folder).chosen, key)["patient"]


def test_a_series_tells_its_patient_by_a_keyed_hash(tmp_path: Path) -> None:
    one = finished.series(tmp_path / "a")
    again = finished.series(tmp_path / "b", uid="1.2.3.5", PatientID=b"ID-1 ")
    other = finished.series(tmp_path / "c", uid="1.2.3.6", PatientID=b"ID-2")
    nobody = finished.series(tmp_path / "d", uid="1.2.3.7", PatientID=b"ANONYMOUS")
    assert patient(one) == patient(again)
    assert len(patient(one) or "") == 12
    assert patient(other) != patient(one)
    assert patient(nobody) is None
    assert patient(one, bytes(32)) != patient(one)
    assert "ID-1" not in repr(series_record(load(one).chosen, KEY))
