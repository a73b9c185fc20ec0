"""Studies that come by C-STORE: who may send, what is kept, when a study is complete, and what a stop loses: nothing."""

from __future__ import annotations

import itertools
import logging
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from network_ct import ct, new_uid, write
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from medvl.errors import ConfigError, InputError
from medvl.network import store_scu
from medvl.network.address import PeerAddress
from medvl.network.errors import retryable
from medvl.network.receiver import Receiver

QUIET_S = 0.1


class Inbox:
    """Studies that were handed on."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def __call__(self, path: Path) -> None:
        self.paths.append(path)

    def wait(self, n: int) -> list[Path]:
        """The paths, once there are `n`."""
        until(lambda: len(self.paths) >= n)
        return self.paths


def until(true: Callable[[], bool], limit_s: float = 15.0) -> None:
    """Wait for something."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@contextmanager
def receiving(folder: Path, inbox: Callable[[Path], None], **options: object) -> Iterator[Receiver]:
    """A receiver on a free port that caller CT1 may send to."""
    values: dict[str, object] = {"allowed": ["CT1"], "quiet_s": QUIET_S, "min_free_bytes": 0, **options}
    with Receiver(folder, port=0, on_study=inbox, **values) as receiver:  # type: ignore[arg-type]
        yield receiver


def peer(receiver: Receiver, calling: str = "CT1", called: str = "MEDVL") -> PeerAddress:
    """Its address."""
    return PeerAddress(called, "127.0.0.1", receiver.port, calling)


def pixels(paths: list[Path]) -> list[bytes]:
    """Pixel bytes in the order of the instance numbers."""
    return [data.PixelData for data in sorted(map(dcmread, paths), key=lambda data: data.InstanceNumber)]


def test_a_study_arrives_whole_and_under_no_name_of_its_own(tmp_path: Path, inbox: Inbox) -> None:
    files = write(tmp_path / "ct", 4)
    with receiving(tmp_path / "in", inbox) as receiver:
        assert store_scu.echo(peer(receiver)) < 10
        assert all(one.stored for one in store_scu.send(peer(receiver), files))
        (study,) = inbox.wait(1)
        assert study.parent == tmp_path / "in" / "ready"
        assert pixels(list(study.iterdir())) == pixels(files)
        uid = str(dcmread(files[0]).StudyInstanceUID)
        names = [str(path.relative_to(tmp_path / "in")) for path in (tmp_path / "in").rglob("*")]
        assert not any(uid in name or "planted" in name.lower() or "2.25." in name for name in names)
        assert stat.S_IMODE((tmp_path / "in" / "key").stat().st_mode) == 0o600
        assert stat.S_IMODE(study.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in study.iterdir())
        receiver.done(study)
        assert not study.exists()
        assert receiver.counts.stored == 4


@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_dcmtk_sends(tmp_path: Path, inbox: Inbox, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}: apt install dcmtk")
    files = write(tmp_path / "ct", 3)
    packed = []
    for path in files:
        packed.append(tmp_path / f"{path.name}.rle")
        subprocess.run(["dcmcrle", str(path), str(packed[-1])], check=True)
    syntax = ["-xr"] if program == "storescu" else []
    with receiving(tmp_path / "in", inbox) as receiver:
        command = [program, *syntax, "-aet", "CT1", "-aec", "MEDVL", "127.0.0.1", str(receiver.port), *map(str, packed)]
        subprocess.run(command, check=True, timeout=30)
        (study,) = inbox.wait(1)
        came = sorted((dcmread(path) for path in study.iterdir()), key=lambda data: data.InstanceNumber)
        assert [data.pixel_array.tobytes() for data in came] == pixels(files)
        # dcmsend decompresses what it may.
        assert program == "dcmsend" or {data.file_meta.TransferSyntaxUID for data in came} == {"1.2.840.10008.1.2.5"}
        echo = ["echoscu", "-aet", "CT1", "-aec", "MEDVL", "127.0.0.1", str(receiver.port)]
        assert subprocess.run(echo, check=False, timeout=30).returncode == 0


@pytest.mark.parametrize(
    ("options", "calling", "called"),
    [({}, "OTHER", "MEDVL"), ({}, "CT1", "NOBODY"), ({"allowed": []}, "CT1", "MEDVL"), ({"allowed": []}, "", "MEDVL")],
)
def test_who_is_not_allowed_is_refused(
    tmp_path: Path, inbox: Inbox, options: dict[str, object], calling: str, called: str
) -> None:
    with receiving(tmp_path, inbox, **options) as receiver, pytest.raises(InputError) as caught:
        store_scu.echo(peer(receiver, calling or "ANY", called))
    assert caught.value.code == "pacs_refused"


def test_connections_without_association_end_quietly(tmp_path: Path, inbox: Inbox) -> None:
    entity = AE(ae_title="OTHER")
    entity.add_requested_context("1.2.840.10008.1.1")
    with receiving(tmp_path, inbox) as receiver:
        silent = socket.create_connection(("127.0.0.1", receiver.port), timeout=10)
        assert entity.associate("127.0.0.1", receiver.port, ae_title="MEDVL").is_rejected
        until(lambda: len(receiver._peers) > 0)
    with silent:  # a thread of pynetdicom that fails while we stop fails this test
        assert silent.recv(1) == b"", "hung up, nothing said"
    assert not [t for t in threading.enumerate() if isinstance(t, Association) and t.is_acceptor]


def test_anybody_may_send_when_asked_for(tmp_path: Path, inbox: Inbox) -> None:
    with receiving(tmp_path, inbox, allowed=[], allow_any=True) as receiver:
        store_scu.echo(peer(receiver, "WHOEVER"))
    with pytest.raises(ConfigError, match="one of the two"), receiving(tmp_path, inbox, allow_any=True):
        pass


def test_without_room_senders_are_told_to_come_back(tmp_path: Path, inbox: Inbox) -> None:
    with receiving(tmp_path / "in", inbox, min_free_bytes=1 << 60) as receiver:
        (answer,) = store_scu.send(peer(receiver), write(tmp_path / "ct", 1))
    assert (answer.stored, answer.failure, answer.retryable) == (False, 0xA700, True)
    assert list((tmp_path / "in").rglob("*.dcm")) == list((tmp_path / "in").rglob("*.part")) == []


def test_an_object_that_is_too_long_ends_the_association(tmp_path: Path, inbox: Inbox) -> None:
    with receiving(tmp_path / "in", inbox, max_instance_bytes=100_000) as receiver:
        assert store_scu.send(peer(receiver), write(tmp_path / "small", 1, size=200))[0].stored
        with pytest.raises(InputError) as caught:
            store_scu.send(peer(receiver), write(tmp_path / "long", 1, size=2000))
        assert retryable(caught.value)
        assert store_scu.send(peer(receiver), write(tmp_path / "next", 3, size=200))[2].stored


def test_a_message_part_of_four_gigabytes_is_not_read(tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvl.network.receiver.GREETING_S", 0.5)
    with receiving(tmp_path / "in", inbox) as receiver:
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as raw:
            raw.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + b"x" * 100)
            assert raw.recv(100) == b""
        store_scu.echo(peer(receiver))


@pytest.mark.parametrize(
    ("study", "sop"),
    [
        ("../../../etc", ""),
        ("1.2/../../x", ""),
        ("..", ""),
        ("", ""),
        ("1." * 40 + "1", ""),
        ("2.25.7", "../../evil"),
        ("2.25.7", "/etc/passwd"),
    ],
)
def test_hostile_uids_are_refused_and_become_no_path(tmp_path: Path, inbox: Inbox, study: str, sop: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = ct(1, "2.25.1", "2.25.2", sop=sop)
        data.StudyInstanceUID = study
        with receiving(tmp_path / "in", inbox) as receiver:
            entity = AE(ae_title="CT1")
            contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
            association = entity.associate("127.0.0.1", receiver.port, contexts=contexts, ae_title="MEDVL")
            status = association.send_c_store(data)
            association.release()
    assert 0xC000 <= status.Status <= 0xCFFF
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert [path for path in (tmp_path / "in").rglob("*") if path.is_file() and path.name not in ("key", "lock")] == []


def test_a_data_set_that_names_another_instance_or_cannot_be_read_is_refused(tmp_path: Path, inbox: Inbox) -> None:
    data = ct(1, "2.25.1", "2.25.2")
    whole = encode(data, is_implicit_vr=False, is_little_endian=True)
    with receiving(tmp_path / "in", inbox) as receiver:
        for uid, content, status in (
            ("2.25.9", whole, 0xC003),
            (data.SOPInstanceUID, whole[:300], 0xC002),
            ("2.25.9", b"x" * 99, 0xC002),
        ):
            assert raw_store(receiver.port, uid, content) == status
        assert raw_store(receiver.port, data.SOPInstanceUID, whole) == 0
        inbox.wait(1)


def raw_store(port: int, sop_uid: str, content: bytes) -> int:
    """Send bytes as they are as the data set of a C-STORE; the status."""
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    association = AE(ae_title="CT1").associate("127.0.0.1", port, contexts=contexts, ae_title="MEDVL")
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, sop_uid
    request.DataSet = BytesIO(content)
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return int(answer.Status)


def test_late_images_make_a_new_version_with_all(tmp_path: Path, inbox: Inbox) -> None:
    files = write(tmp_path / "ct", 5)
    with receiving(tmp_path / "in", inbox) as receiver:
        store_scu.send(peer(receiver), files[:2])
        (first,) = inbox.wait(1)
        store_scu.send(peer(receiver), files[2:4])
        _, second = inbox.wait(2)
        assert (len(list(first.iterdir())), pixels(list(second.iterdir()))) == (2, pixels(files[:4]))
        receiver.done(first)
        receiver.done(second)
        store_scu.send(peer(receiver), files[3:])
        third = inbox.wait(3)[2]
        assert pixels(list(third.iterdir())) == pixels(files)
        assert len({first.name[:16], second.name[:16], third.name[:16]}) == 1
        assert len({first, second, third}) == 3
    assert list((tmp_path / "in" / "late").iterdir()) == []


def test_done_studies_go_when_their_time_is_over(tmp_path: Path, inbox: Inbox) -> None:
    with receiving(tmp_path / "in", inbox, late_s=0.2) as receiver:
        store_scu.send(peer(receiver), write(tmp_path / "ct", 1))
        receiver.done(inbox.wait(1)[0])
        until(lambda: not list((tmp_path / "in").rglob("*.dcm")))
        receiver.done(inbox.paths[0])
        with pytest.raises(ValueError, match="folder that the spool gave"):
            receiver.done(tmp_path)


def test_the_same_instance_again_is_one_file(tmp_path: Path, inbox: Inbox) -> None:
    files = write(tmp_path / "ct", 2)
    with receiving(tmp_path / "in", inbox) as receiver:
        answers = store_scu.send(peer(receiver), [*files, *files])
        assert [one.stored for one in answers] == [True] * 4
        assert len(list(inbox.wait(1)[0].iterdir())) == 2


def test_an_open_association_holds_its_study(tmp_path: Path, inbox: Inbox) -> None:
    files = write(tmp_path / "ct", 2)
    with receiving(tmp_path / "in", inbox) as receiver:
        association = AE(ae_title="CT1").associate(
            "127.0.0.1", receiver.port, contexts=[build_context(CTImageStorage, ExplicitVRLittleEndian)], ae_title="MEDVL"
        )
        association.send_c_store(dcmread(files[0]))
        time.sleep(QUIET_S * 5)
        assert inbox.paths == []
        association.send_c_store(dcmread(files[1]))
        association.release()
        assert len(list(inbox.wait(1)[0].iterdir())) == 2


def test_an_association_that_goes_on_to_the_next_study_lets_the_first_go(tmp_path: Path, inbox: Inbox) -> None:
    with receiving(tmp_path / "in", inbox) as receiver:
        association = AE(ae_title="CT1").associate(
            "127.0.0.1", receiver.port, contexts=[build_context(CTImageStorage, ExplicitVRLittleEndian)], ae_title="MEDVL"
        )
        for number in range(2):
            association.send_c_store(dcmread(write(tmp_path / str(number), 1)[0]))
        assert len(inbox.wait(1)) == 1
        association.release()
        assert len(inbox.wait(2)) == 2


def test_what_was_not_done_is_offered_again_after_a_restart(tmp_path: Path, inbox: Inbox) -> None:
    with receiving(tmp_path / "in", inbox) as receiver:
        for number in range(3):
            store_scu.send(peer(receiver), write(tmp_path / str(number), 1))
        first = sorted(inbox.wait(3))
        receiver.done(first.pop(1))
    again = Inbox()
    with receiving(tmp_path / "in", again):
        assert sorted(again.wait(2)) == first


def test_a_study_that_nobody_takes_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvl.network.receiver.NETWORK_S", 0.3)
    seen: list[Path] = []

    def take(path: Path) -> None:
        seen.append(path)
        if len(seen) == 1:
            raise RuntimeError("planted-secret")

    with receiving(tmp_path / "in", take) as receiver:
        store_scu.send(peer(receiver), write(tmp_path / "a", 1))
        until(lambda: len(seen) == 1)
        store_scu.send(peer(receiver), write(tmp_path / "b", 1))
        until(lambda: len(seen) == 3)
    assert len(set(seen)) == 2
    assert "planted" not in caplog.text


def test_one_folder_one_receiver_one_port(tmp_path: Path, inbox: Inbox) -> None:
    with receiving(tmp_path / "in", inbox) as receiver:
        with pytest.raises(ConfigError, match="another receiver"), receiving(tmp_path / "in", inbox):
            pass
        with pytest.raises(ConfigError, match="cannot listen"):
            Receiver(tmp_path / "other", port=receiver.port, on_study=inbox, allowed=["CT1"]).start()
    with pytest.raises(ConfigError, match="AE title"):
        Receiver(tmp_path / "x", port=0, on_study=inbox, allowed=["NAME\\OTHER"])


def test_no_log_names_a_patient(tmp_path: Path, inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    files = write(tmp_path / "ct", 2)
    with receiving(tmp_path / "in", inbox, min_free_bytes=1 << 60) as receiver:
        store_scu.send(peer(receiver), files)
    with receiving(tmp_path / "in", inbox) as receiver:
        store_scu.send(peer(receiver), files)
        inbox.wait(1)
    assert "refused" in caplog.text
    assert "2.25." not in caplog.text
    assert "planted" not in caplog.text.lower()


@pytest.mark.slow
def test_killed_in_the_middle_it_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    acknowledged: set[str] = set()
    studies = [(new_uid(), new_uid()) for _ in range(3)]
    numbers = itertools.count(1)
    for _kill in range(5):
        process, port = started(folder, "600")
        sender = threading.Thread(target=send_until_broken, args=(port, studies, numbers, acknowledged))
        sender.start()
        before = len(acknowledged)
        until(lambda before=before: len(acknowledged) > before + 5)
        process.kill()
        process.wait()
        process.stdout.close()
        sender.join(30)
        assert not sender.is_alive()
    inbox = Inbox()
    with receiving(folder, inbox):
        inbox.wait(3)
    there = {str(dcmread(path).SOPInstanceUID) for study in inbox.paths for path in study.iterdir()}
    assert len(acknowledged) > 25
    assert acknowledged <= there


def started(folder: Path, quiet_s: str) -> tuple[subprocess.Popen[str], int]:
    """A receiver's process, and its port."""
    command = [sys.executable, str(Path(__file__).with_name("receiver_process.py")), str(folder), quiet_s]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def send_until_broken(port: int, studies: list[tuple[str, str]], numbers: Iterator[int], acknowledged: set[str]) -> None:
    """Send slices of the studies in turn, noting what is acknowledged, until the receiver is gone."""
    entity = AE(ae_title="CT1")
    entity.dimse_timeout = 3
    association = entity.associate(
        "127.0.0.1", port, contexts=[build_context(CTImageStorage, ExplicitVRLittleEndian)], ae_title="MEDVL"
    )
    raw = association.dul.socket.socket
    for number in numbers:
        data = ct(number, *studies[number % 3])
        try:
            status = association.send_c_store(data)
        except RuntimeError:
            break
        if "Status" not in status:
            break
        if status.Status == 0:
            acknowledged.add(str(data.SOPInstanceUID))
    association.abort()
    raw.close()
