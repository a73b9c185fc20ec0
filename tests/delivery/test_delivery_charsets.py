"""Names in every alphabet reach the objects byte for byte, and read the same."""

from datetime import datetime
from pathlib import Path

import pydicom
import pytest
from finished import conforms, finished, series

from medvl.delivery.objects import make_objects
from medvl.imaging.load import load

NOW = datetime(2026, 3, 4, 5, 6, 7)
JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
KOREAN = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
# charset as declared, bytes of the name, what is declared in the object, the name as people read it
CASES = {
    "plain": (None, b"Doe^Jane", None, "Doe^Jane"),
    "latin1": ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), "ISO_IR 100", "Müller^Jörg"),
    "cyrillic": ("ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "ISO_IR 144", "Люкceмбypг"),
    "greek": ("ISO_IR 126", "Διονυσιος".encode("iso8859_7"), "ISO_IR 126", "Διονυσιος"),
    "utf8": ("ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "ISO_IR 192", "Wang^XiaoDong=王^小東="),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030"), "GB18030", "Wang^XiaoDong=王^小东="),
    "japanese": ("\\ISO 2022 IR 87", JAPANESE, ["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "korean": ("\\ISO 2022 IR 149", KOREAN, ["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "undeclared latin1": (None, "Müller^Jörg".encode("latin-1"), "ISO_IR 100", "Müller^Jörg"),
    "undeclared utf8": (None, "Müller^Jörg".encode(), "ISO_IR 192", "Müller^Jörg"),
    "unknown set": ("KOI8-R", "Müller^Jörg".encode("latin-1"), "ISO_IR 100", "Müller^Jörg"),
    "retired form": ("ISO_IR 100", b"SMITH JOHN,DR", "ISO_IR 100", "SMITH JOHN,DR"),
}
READABLE = [name for name in CASES if name != "retired form"]


def raw(path: Path, keyword: str) -> bytes:
    """Bytes of an element, found in the file by its tag, without a library that decodes."""
    found = pydicom.dcmread(path, stop_before_pixels=True, defer_size=None).get_item(keyword)
    return bytes(found.value)


@pytest.mark.parametrize("case", CASES)
def test_names_keep_their_bytes(tmp_path: Path, case: str) -> None:
    declared, name, terms, people = CASES[case]
    folder = series(tmp_path / "ct", declared, PatientName=name, ReferringPhysicianName=name)
    entry = load(folder).chosen
    assert entry is not None and entry.geometry is not None
    study = finished(tmp_path / "results", entry.geometry.center_lps)
    for made in make_objects(study, entry, tmp_path / "out", kinds=("sr", "seg", "pdf"), made_at=NOW):
        conforms(made.path)
        assert raw(made.path, "PatientName").rstrip(b" ") == name
        assert raw(made.path, "ReferringPhysicianName").rstrip(b" ") == name
        ds = pydicom.dcmread(made.path)
        assert ds.get("SpecificCharacterSet") == terms
        assert str(ds.PatientName) == people.rstrip("=") or str(ds.PatientName) == people


def test_labels_that_the_set_cannot_say_turn_the_object_to_utf8(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", "ISO_IR 144", PatientName="Люкceмбypг".encode("iso8859_5"))
    entry = load(folder).chosen
    assert entry is not None and entry.geometry is not None
    study = finished(tmp_path / "results", entry.geometry.center_lps, label="腎腫瘤")
    for made in make_objects(study, entry, tmp_path / "out", made_at=NOW):
        conforms(made.path)
        ds = pydicom.dcmread(made.path)
        assert (ds.SpecificCharacterSet, str(ds.PatientName)) == ("ISO_IR 192", "Люкceмбypг")
        if made.kind == "sr":
            assert "腎腫瘤" in str(ds)


def test_values_that_break_their_rule_are_left_out_and_names_are_not(tmp_path: Path) -> None:
    hostile = {
        "PatientID": b"X" * 70, "StudyDate": b"2026.01.01", "PatientBirthDate": b"20261399", "PatientSex": b"unknown",
        "PatientAge": b"0Y", "PatientWeight": b"heavy", "StudyTime": b"99", "AccessionNumber": b"",
    }  # fmt: skip
    entry = load(series(tmp_path / "ct", **hostile)).chosen
    assert entry is not None and entry.geometry is not None
    study = finished(tmp_path / "results", entry.geometry.center_lps)
    made = make_objects(study, entry, tmp_path / "out", kinds=("sr",), made_at=NOW)[0]
    ds = pydicom.dcmread(made.path)
    assert raw(made.path, "PatientID") == b"X" * 70
    assert (ds.StudyDate, ds.PatientBirthDate, ds.PatientSex, ds.StudyTime) == ("", "", "", "")
    assert "PatientAge" not in ds
    assert "PatientWeight" not in ds
