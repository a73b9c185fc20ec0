"""Addresses as people write them, and what is refused without repeating it."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from medvl.errors import ConfigError
from medvl.network.access import Access, access_from
from medvl.network.address import PeerAddress, WebAddress, is_address, parse
from medvl.network.errors import is_uid

TODAY = datetime.date(2024, 3, 1)


def test_a_dicomweb_address() -> None:
    address = parse(
        "dicomweb+https://pacs.example:8443/dicom-web/?StudyDate=20240101-20240131&ModalitiesInStudy=CT&PatientID=P%201"
    )
    assert isinstance(address, WebAddress)
    assert address.url == "https://pacs.example:8443/dicom-web"
    assert address.query(TODAY) == {"StudyDate": "20240101-20240131", "ModalitiesInStudy": "CT", "PatientID": "P 1"}
    assert address.shown == "dicomweb+https://pacs.example:8443/dicom-web?StudyDate=...&ModalitiesInStudy=...&PatientID=..."
    assert "P 1" not in repr(address)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("today", "20240301"),
        ("yesterday", "20240229"),
        ("-7d", "20240223"),
        ("-7d..", "20240223-"),
        ("-7d..yesterday", "20240223-20240229"),
        ("..today", "-20240301"),
        ("20240101..20240131", "20240101-20240131"),
        ("20240101-", "20240101-"),
        ("20240229", "20240229"),
    ],
)
def test_days(written: str, asked: str) -> None:
    address = parse(f"dicomweb+https://pacs/?StudyDate={written}&00080020={written}")
    assert isinstance(address, WebAddress)
    assert address.query(TODAY) == {"StudyDate": asked, "00080020": asked}


def test_a_dicom_address() -> None:
    assert parse("dicom://PACS@10.0.0.5:104?calling=MEDVL2") == PeerAddress("PACS", "10.0.0.5", 104, "MEDVL2")
    assert parse("dicom+tls://MY%20PACS@[::1]:2762") == PeerAddress("MY PACS", "::1", 2762, "MEDVL", tls=True)
    assert is_address("dicom://X@h:1")
    assert not is_address("folder/dicom")
    assert not is_address("s3://bucket")


@pytest.mark.parametrize(
    "text",
    [
        "dicomweb+https://planted:planted@pacs/",
        "dicomweb+https://planted@pacs/",
        "dicomweb+http://pacs.planted/",
        "dicomweb+http://10.0.0.5/?PatientID=planted",
        "https://planted/",
        "dicomweb+https:///planted",
        "dicomweb+https://pacs:99999/planted",
        "dicomweb+https://pacs:0/planted",
        "dicomweb+https://pacs/#planted",
        "dicomweb+https://pacs/?limit=5",
        "dicomweb+https://pacs/?StudyDat=planted",
        "dicomweb+https://pacs/?planted^name=1",
        "dicomweb+https://pacs/?planted",
        "dicomweb+https://pacs/?StudyDate=planted",
        "dicomweb+https://pacs/?StudyDate=20240230",
        "dicomweb+https://pacs/?StudyDate=20240131-20240101",
        "dicomweb+https://pacs/?StudyDate=..",
        "dicomweb+https://pacs/?PatientID=planted%0d%0aX",
        "dicomweb+https://pacs/?PatientID=planted&PatientID=planted2",
        "dicom://PACS:planted@host:104",
        "dicom://PACS@host",
        "dicom://host:104",
        "dicom://PACS@host:104/planted",
        "dicom://PACS@host:104?planted=1",
        "dicom://PACS@host:104?calling=planted-planted-planted",
        "dicom://A%5CB@host:104",
    ],
)
def test_what_cannot_be_used_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert "planted" not in str(caught.value).lower()


def test_the_hint_names_the_nearest_filter() -> None:
    with pytest.raises(ConfigError, match="did you mean StudyDate"):
        parse("dicomweb+https://pacs/?StudyDat=today")


def test_plain_http_is_for_this_machine_or_by_will() -> None:
    for host in ("127.0.0.1:8042", "localhost", "[::1]:80"):
        parse(f"dicomweb+http://{host}/dicom-web")
    parse("dicomweb+http://pacs/", allow_plain=True)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    assert "planted" not in repr(Access(user="planted", password="planted")) + repr(Access(token="planted"))
    file = tmp_path / "login"
    file.write_text('user: planted\npassword: "0123"\n')
    file.chmod(0o600)
    assert access_from({}, file) == Access(user="planted", password="0123")
    assert access_from({"MEDVL_DICOMWEB_TOKEN": "t", "OTHER": "x"}) == Access(token="t")
    assert access_from({}) == Access()
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        access_from({}, file)
    file.chmod(0o600)
    for content in ("planted", "user: [planted]", "secret: planted", ": : planted", "password: planted"):
        file.write_text(content)
        with pytest.raises(ConfigError) as caught:
            access_from({}, file)
        assert "planted" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        access_from({}, tmp_path / "none")


@pytest.mark.parametrize(
    "login",
    [
        {"user": "a"},
        {"password": "b"},
        {"user": "a", "password": "b", "token": "c"},
        {"token": "a\nb"},
        {"user": "a:b", "password": "c"},
    ],
)
def test_a_login_that_makes_no_sense_is_refused(login: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Access(**login)
    with pytest.raises(ConfigError, match="no such file"):
        Access(ca_bundle=Path("nowhere.pem"))


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("1.2.3", True),
        ("1.2.03", True),
        ("2.25." + "1" * 59, True),
        ("2.25." + "1" * 60, False),
        ("", False),
        ("..", False),
        ("1..2", False),
        (".1", False),
        ("1.", False),
        ("1/2", False),
        ("1.2\n", False),
        ("１.２", False),
    ],
)
def test_uids(text: str, fine: bool) -> None:
    assert is_uid(text) == fine
