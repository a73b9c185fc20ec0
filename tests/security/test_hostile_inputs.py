"""Inputs made to break the reader: each is refused with a reason, soon, and without taking memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile import CASES, image, save, start

from medvl.dicom.scan import scan
from medvl.dicom.source import Item, list_items, named_items, shown
from medvl.errors import InputError

SECONDS = 5.0
GROWTH_KIB = 400 << 10
CHILD = """
import json, resource, sys, time
from pathlib import Path
import numpy, pydicom, nibabel
from medvl.errors import InputError
from medvl.imaging.load import load


def peak():
    # of this program alone, in KiB; ru_maxrss would hold that of the process that started it
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))


resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for name, path in json.loads(sys.stdin.read()):
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, began = peak(), time.monotonic()
    codes, crash = [], ""
    try:
        loaded = load(Path(path))
        codes += [one.reason.code for one in loaded.rejected]
        for study in loaded:
            for entry in study.entries:
                codes.append(entry.reasons[0].code if entry.verdict == "refused" else "used")
    except InputError as error:
        codes.append(error.code)
    except BaseException as error:
        crash = type(error).__name__
    print(json.dumps([name, codes, crash, time.monotonic() - began, peak() - before]), flush=True)
"""


pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What a child process made of every case: codes, crash, seconds, growth of its memory in KiB."""
    root = tmp_path_factory.mktemp("hostile")
    jobs = []
    for name, (make, _) in CASES.items():
        (root / name).mkdir()
        jobs.append((name, str(make(root / name))))
    command = [sys.executable, "-c", CHILD]
    ended = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, timeout=240, check=False)
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("[")]
    return {name: rest for name, *rest in lines}


@pytest.mark.parametrize("name", CASES)
def test_hostile_input_is_refused(name: str, outcomes: dict[str, list[Any]]) -> None:
    assert name in outcomes, "the reading process died before or in this case"
    codes, crash, seconds, growth = outcomes[name]
    assert crash == ""
    assert codes and set(codes) <= CASES[name][1]
    assert seconds < SECONDS
    assert growth < GROWTH_KIB


def test_a_linked_input_is_followed_once(tmp_path: Path) -> None:
    """The input itself may be a link, and links that stay within it are good."""
    (tmp_path / "real").mkdir()
    save(tmp_path / "real", start() + image())
    (tmp_path / "real" / "b").symlink_to("I1")
    (tmp_path / "link").symlink_to("real")
    found = list_items(tmp_path / "link")
    assert [(item.name, item.refused) for item in found] == [("I1", None), ("b", None)]
    assert scan(tmp_path / "link").rejected == ()


def test_named_files_cannot_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save(tmp_path, start() + image())
    with pytest.raises(InputError, match="outside_link"):
        named_items(tmp_path / "in", ["../I1"])


def test_a_folder_that_cannot_be_listed_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, start() + image())
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = scan(tmp_path)
    assert [(one.path, one.reason.code) for one in found.rejected] == [("locked/", "unreadable_file")]
    assert "locked" not in found.rejected[0].reason.message
    assert len(found.series) == 1


def test_a_name_cannot_drive_the_terminal() -> None:
    assert shown("a\x1b[31m\udcff\nü 京.dcm") == "a\ufffd[31m\ufffd\ufffdü 京.dcm"


def test_a_refused_item_is_never_opened(tmp_path: Path) -> None:
    from medvl.dicom.source import Opener

    with Opener() as opener, pytest.raises(InputError, match="special_file"):
        opener.read(Item("a", tmp_path / "absent", 0, refused=("special_file", "a pipe")))
