"""What a real Orthanc says to medvl. Run by `test_orthanc.py` inside a network namespace: Orthanc listens on every interface."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_ct import write
from orthanc import LOGIN, Pacs, new_pacs
from pydicom import dcmread

from medvl.errors import InputError
from medvl.network import dicomweb, store_scu
from medvl.network.access import Access
from medvl.network.address import PeerAddress, WebAddress, parse
from medvl.network.dicomweb import DicomWeb
from medvl.network.errors import retryable


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    found = new_pacs(tmp_path_factory.mktemp("orthanc")).start()
    yield found
    found.stop()


def web(text: str) -> WebAddress:
    """The address of a DICOMweb service."""
    address = parse(text)
    assert isinstance(address, WebAddress)
    return address


def study_of(paths: list[Path]) -> str:
    """The UID of the study that files belong to."""
    return str(dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)


def pixels(paths: list[Path]) -> dict[str, bytes]:
    """SOP instance UID to pixel bytes."""
    return {str(data.SOPInstanceUID): data.PixelData for data in map(dcmread, paths)}


def test_a_study_goes_in_is_found_and_comes_back_bit_by_bit(pacs: Pacs, tmp_path: Path) -> None:
    files = write(tmp_path / "ct", 5)
    other = write(tmp_path / "other", 2, study=study_of(files), modality="MR")
    with DicomWeb(web(f"{pacs.web}?StudyDate=20240101..20240131&ModalitiesInStudy=CT"), LOGIN) as client:
        assert client.echo() < 30
        assert not client.has(study_of(files), str(dcmread(files[0]).SOPInstanceUID))
        assert all(one.stored for one in client.store([*files, *other]))
        assert client.has(study_of(files), str(dcmread(files[0]).SOPInstanceUID))
        again = client.store(files)
        assert [one.stored for one in again] == [True] * 5
        found = {one.study_uid: one for one in client.studies()}
        assert found[study_of(files)].n_instances == 7
        assert set(found[study_of(files)].modalities) == {"CT", "MR"}
        assert client.fetch(study_of(files), tmp_path / "back", max_bytes=1 << 20) == 5
        assert sorted(path.name for path in (tmp_path / "back").glob("*.dcm")) == [f"00000{n}.dcm" for n in range(1, 6)]
        assert pixels(list((tmp_path / "back").glob("*.dcm"))) == pixels(files)
        assert client.fetch(study_of(files), tmp_path / "pet", max_bytes=1 << 20, modality="PT") == 0
        with pytest.raises(InputError) as caught:
            client.fetch(study_of(files), tmp_path / "small", max_bytes=5000)
        assert caught.value.code == "too_large"


def test_a_search_reads_every_page(pacs: Pacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", 3)
    uids = set()
    with DicomWeb(web(f"{pacs.web}?StudyDescription=&ModalitiesInStudy=CT"), LOGIN) as client:
        for number in range(8):
            files = write(tmp_path / str(number), 1)
            uids.add(study_of(files))
            client.store(files)
        found = [one.study_uid for one in client.studies()]
        assert uids <= set(found)
        assert len(found) == len(set(found))
    with DicomWeb(web(f"{pacs.web}?StudyDate=20240118.."), LOGIN) as client:
        assert list(client.studies()) == []


@pytest.mark.parametrize("access", [Access(user="night", password="wrong"), Access(token="t0ken"), None])
def test_a_wrong_login_is_refused(pacs: Pacs, access: Access | None) -> None:
    with DicomWeb(web(pacs.web), access) as client, pytest.raises(InputError, match="401") as caught:
        client.echo()
    assert caught.value.code == "pacs_refused"
    assert not retryable(caught.value)


def test_compressed_images_come_as_they_are_stored(pacs: Pacs, tmp_path: Path) -> None:
    files = write(tmp_path / "ct", 2)
    packed = [path.with_suffix(".jls") for path in files]
    for path, to in zip(files, packed, strict=True):
        subprocess.run(["dcmcrle", str(path), str(to)], check=True)
    with DicomWeb(web(pacs.web), LOGIN) as client:
        client.store(packed)
        assert client.fetch(study_of(files), tmp_path / "back", max_bytes=1 << 20) == 2
    back = list((tmp_path / "back").glob("*.dcm"))
    assert {dcmread(path).file_meta.TransferSyntaxUID for path in back} == {"1.2.840.10008.1.2.5"}
    assert pixels(back) == pixels(packed)


def test_orthanc_takes_c_store(pacs: Pacs, tmp_path: Path) -> None:
    peer = PeerAddress("ORTHANC", "127.0.0.1", pacs.dicom)
    files = write(tmp_path / "ct", 3)
    assert store_scu.echo(peer) < 30
    assert all(one.stored for one in store_scu.send(peer, files))
    with DicomWeb(web(pacs.web), LOGIN) as client:
        assert client.fetch(study_of(files), tmp_path / "back", max_bytes=1 << 20) == 3
    assert pixels(list((tmp_path / "back").glob("*.dcm"))) == pixels(files)
