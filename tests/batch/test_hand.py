"""Child processes: what they send back, and what becomes of those that hang, grow or die."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Tiny, scan_of

from medvl.batch import wire
from medvl.batch.hand import Hand, Here, KilledError
from medvl.errors import InputError
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.truth import Patient


@pytest.fixture
def greeting(tiny_run: Tiny) -> dict[str, Any]:
    return {"bundle": str(tiny_run.bundle), "key": "00" * 32, "memory_mb": 0}


@pytest.fixture
def scan(who: Patient, tmp_path: Path) -> Path:
    write_nifti(scan_of(who), None, tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def test_messages_come_back_as_they_were_sent() -> None:
    arrays = [np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.zeros((0, 2), np.float32)]
    stream = io.BytesIO()
    wire.send(stream, {"a": [1, "é"]}, arrays)
    stream.seek(0)
    text, back = wire.receive(stream)
    assert text == {"a": [1, "é"]}
    for sent, found in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(sent, found)
        assert sent.dtype == found.dtype
    with pytest.raises(wire.Broken):
        wire.receive(stream)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 1 << 60),
        struct.pack("<Q", 5) + b"\x80\x04N.x",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 44) + b'{"text": {}, "arrays": [["object", [1000]]]}',
        struct.pack("<Q", 47) + b'{"text": {}, "arrays": [["int16", [1000000000]]]}'[:47],
        struct.pack("<Q", 48) + b'{"text": {}, "arrays": [["float32", [999999999]]]}'[:48],
    ],
    ids=["endless", "pickle", "no message", "objects", "cut", "cut too"],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(wire.Broken):
        wire.receive(io.BytesIO(data))


def test_here_and_in_a_child_the_same_is_found(greeting: dict[str, Any], scan: Path) -> None:
    hand, here = Hand(greeting), Here(greeting)
    try:
        found = [part.ask({"op": "find", "path": str(scan)}, 60)[0]["studies"] for part in (hand, here)]
        assert found[0] == found[1] and len(found[0]) == 1
        job = {"op": "read", "source": found[0][0]["source"], "series": found[0][0]["series"]}
        (told, arrays), (ours, grids) = (part.ask(job, 60) for part in (hand, here))
        assert told["pixels"] == ours["pixels"] and told["regions"] == ours["regions"]
        assert len(arrays) == len(grids) > 0
        for a, b in zip(arrays, grids, strict=True):
            np.testing.assert_array_equal(a, b)
        with pytest.raises(InputError, match="not_found"):
            hand.ask({"op": "find", "path": str(scan / "nowhere")}, 60)
        assert hand.peak_mb > 100
    finally:
        hand.close()


@pytest.mark.slow
def test_a_child_that_hangs_or_dies_is_replaced(greeting: dict[str, Any], scan: Path, tmp_path: Path) -> None:
    hand = Hand(greeting)
    hand.start()
    process = hand._process
    assert process is not None
    try:
        hand.ask({"op": "find", "path": str(scan)}, 60)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(KilledError) as hung:
            hand.ask({"op": "find", "path": str(scan)}, 0.5)
        assert hung.value.code == "timeout"
        assert hand.ask({"op": "find", "path": str(scan)}, 60)[0]["studies"]
        now = hand._process
        assert now is not None and now.pid != process.pid
        os.kill(now.pid, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (now.pid, signal.SIGKILL)).start()
        with pytest.raises(KilledError) as died:
            hand.ask({"op": "find", "path": str(scan)}, 60)
        assert died.value.code == "worker_died"
        assert hand.ask({"op": "find", "path": str(scan)}, 60)[0]["studies"]
    finally:
        hand.close()
    with pytest.raises(KilledError):
        hand.ask({"op": "find", "path": str(scan)}, 60)


@pytest.mark.slow
def test_a_study_that_needs_too_much_memory_is_ended(greeting: dict[str, Any], who: Patient, tmp_path: Path) -> None:
    write_dicom(scan_of(who), who, tmp_path / "in")
    hand = Hand({**greeting, "memory_mb": 40})
    try:
        study = Here(greeting).ask({"op": "find", "path": str(tmp_path / "in")}, 60)[0]["studies"][0]
        with pytest.raises(KilledError) as ended:
            hand.ask({"op": "read", "source": study["source"], "series": study["series"]}, 60)
        assert ended.value.code == "memory_budget"
        assert hand._process is None, "what holds on to memory is gone"
    finally:
        hand.close()
