"""Each check says what is wrong on a machine where it is wrong."""

import base64
import json
import shutil
import socket
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from medvl.doctor import accelerator, bundles, decoders, machine, packages, pacs, storage
from medvl.doctor.check import Check, guarded, size, worst
from medvl_pipelines import doctor
from medvl_pipelines.built_in import bundle_folder

GIB = 1 << 30


def test_a_fix_belongs_to_what_is_not_ok() -> None:
    with pytest.raises(ValueError, match="fix"):
        Check("a", "b", "problem", "Broken.")
    with pytest.raises(ValueError, match="fix"):
        Check("a", "b", "ok", "Fine.", "Do something.")


def test_worst_and_a_check_that_breaks() -> None:
    def broken() -> list[Check]:
        raise RuntimeError("with a secret in it")

    (told,) = guarded("machine", broken)
    assert told.status == "problem" and "secret" not in told.found and "RuntimeError" in told.found
    fine, doubtful = Check("a", "b", "ok", "Fine."), Check("a", "b", "warning", "Hm.", "Look.")
    assert [worst([]), worst([fine]), worst([fine, doubtful]), worst([doubtful, told])] == ["ok", "ok", "warning", "problem"]
    assert [size(512), size(64 << 20), size(1.5 * GIB)] == ["512 B", "64 MiB", "1.5 GiB"]


@pytest.mark.parametrize("version", ["2.2", "2.5.9", "2.6.0+cpu", "3", "10.0.1"])
@pytest.mark.parametrize("bounds", [">=2.6", ">=2.2,<3", "==2.6", "<=3", "!=3.0", ">2.2"])
def test_versions_are_compared_as_packaging_does(version: str, bounds: str) -> None:
    (need,) = packages.needs([f"torch{bounds}"])
    assert packages.fits(version, need.bounds) == SpecifierSet(bounds).contains(version)


def test_requirements_are_read_as_packaging_reads_them() -> None:
    lines = ["pandas<3,>=2.2", 'psycopg[binary]; extra == "server"', "PyYAML>=6", "einops", "dicomweb-client (>=0.61)"]
    for need, line in zip(packages.needs(lines), lines, strict=True):
        told = Requirement(line)
        assert need.name == packages.normal(told.name)
        assert {"".join(b) for b in need.bounds} == {str(s) for s in told.specifier}
    assert [n.extra for n in packages.needs(lines)] == ["", "server", "", "", ""]


def test_missing_and_old_packages_come_with_the_command() -> None:
    wanted = packages.needs(["torch>=2.6", "monai>=1.6", "einops"])
    told = packages.check_present(wanted, {"torch": "2.1.0", "monai": None, "einops": "0.8"})
    assert told.status == "problem"
    assert told.fix == "Run: pip install 'monai>=1.6' 'torch>=2.6'"
    assert packages.check_present(wanted, {"torch": "2.6", "monai": "1.6", "einops": "0.8"}).status == "ok"
    assert packages.check_python((3, 10, 1)).status == "problem"


def test_versions_that_were_not_tested_are_named() -> None:
    wanted, pins = packages.needs(["torch", "PyYAML"]), {"torch": "2.13.0", "pyyaml": "6.0.3"}
    told = packages.check_tested(wanted, {"torch": "2.13.0+cu126", "pyyaml": "6.0.1"}, pins)
    assert told.status == "warning" and "pyyaml 6.0.1" in told.found and "torch" not in told.found
    assert packages.check_tested(wanted, {"torch": "2.13.0+cpu", "pyyaml": "6.0.3"}, pins).status == "ok"
    assert packages.check_tested(wanted, {"torch": "2.13.0", "pyyaml": "6.0.3"}, {}).status == "warning"
    assert packages.tested(packages.constraints_file())["torch"].startswith("2.")


def test_a_package_that_does_not_load_names_the_library_and_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "halfbroken.py").write_text(f"raise ImportError('libGL.so.1: cannot open {tmp_path}/libGL.so.1')")
    monkeypatch.syspath_prepend(folder)
    said = packages._load_error("halfbroken")
    assert "libGL.so.1" in said and str(tmp_path) not in said
    assert packages.check_loads({"halfbroken": said}, 3).status == "problem"


def test_control_groups_limit_processor_and_memory(tmp_path: Path) -> None:
    root, inner = tmp_path / "cgroup", tmp_path / "cgroup" / "pod" / "one"
    inner.mkdir(parents=True)
    (tmp_path / "told").write_text("0::/pod/one\n")
    (tmp_path / "meminfo").write_text(f"MemTotal: {32 << 20} kB\nMemAvailable: {30 << 20} kB\n")
    assert machine.cpu_quota(root, tmp_path / "told") is None
    assert machine.memory(root, tmp_path / "told", tmp_path / "meminfo") == (32 * GIB, 30 * GIB, False)
    (inner / "cpu.max").write_text("max 100000\n")
    (root / "pod" / "cpu.max").write_text("150000 100000\n")
    (root / "pod" / "memory.max").write_text(f"{4 * GIB}\n")
    (root / "pod" / "memory.current").write_text(f"{3 * GIB}\n")
    assert machine.cpu_quota(root, tmp_path / "told") == 1.5
    total, free, limited = machine.memory(root, tmp_path / "told", tmp_path / "meminfo")
    assert (total, free, limited) == (4 * GIB, GIB, True)
    assert machine.check_memory(total, free, limited).status == "problem"
    assert machine.check_cores(8, 1.5).status == "warning"


def test_old_control_groups_too(tmp_path: Path) -> None:
    for name, text in {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.cpu_quota(tmp_path, tmp_path / "none") == 4.0


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (machine.check_open_files(64), "problem"),
        (machine.check_open_files(512), "warning"),
        (machine.check_open_files(None), "ok"),
        (machine.check_shared(64 << 20), "warning"),
        (machine.check_shared(2 * GIB), "ok"),
        (machine.check_memory(8 * GIB, 3 * GIB, False), "warning"),
        (machine.check_cores(1, None), "warning"),
        (machine.check_clock(0.0, 1.7e9, "UTC", 0), "problem"),
        (machine.check_font(), "ok"),
        (accelerator.check_build("2.6.0", "12.6", False, "535.1"), "problem"),
        (accelerator.check_build("2.6.0+cpu", None, False, "535.1"), "warning"),
        (accelerator.check_build("2.6.0+cpu", None, False, None), "ok"),
        (storage.check_room("x", 1 << 20), "problem"),
        (storage.check_room("x", 2 * GIB), "warning"),
    ],
)
def test_limits(told: Check, status: str) -> None:
    assert told.status == status


def test_the_product_that_tells_whether_a_device_computes() -> None:
    torch = pytest.importorskip("torch")
    assert accelerator.computes(torch, "cpu", bf16=True)
    assert accelerator.computes(torch, "cpu", bf16=False)


@pytest.mark.parametrize("syntax", list(decoders.FRAMES))
def test_decoders_work_here_and_a_broken_frame_is_seen(syntax: str) -> None:
    bits, text = decoders.FRAMES[syntax]
    data = base64.b64decode(text)
    assert decoders.check_decoder(syntax, bits, data).status == "ok"
    assert decoders.check_decoder(syntax, bits, data[: len(data) // 4]).status == "problem"


def test_wrong_values_of_a_decoder_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "decode", lambda *_: np.zeros((32, 32), np.uint16))
    told = decoders.check_decoder("1.2.840.10008.1.2.5", 16, b"")
    assert told.status == "problem" and told.facts["off"] == 3000


def test_a_good_folder_passes_and_nothing_stays(tmp_path: Path) -> None:
    told = list(storage.check_folder("results folder", tmp_path / "not" / "there" / "yet"))
    assert [c.name for c in told] == ["results folder", "results folder, writing", "results folder, ledger"]
    assert {c.status for c in told[1:]} == {"ok"}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (told,) = storage.check_folder("results folder", tmp_path / "file")
    assert told.status == "problem" and str(tmp_path) not in json.dumps(told.as_dict())


def test_shares_and_refused_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.check_ledger("x", tmp_path, "nfs4").status == "warning"
    monkeypatch.setattr(storage, "_reads_while_writing", lambda _: (-1, -1))
    assert storage.check_ledger("x", tmp_path, "ext4").status == "problem"

    def locked(_: Path) -> tuple[int, int]:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(storage, "_reads_while_writing", locked)
    assert storage.check_ledger("x", tmp_path, "cifs").status == "problem"


def test_the_kind_of_a_mounted_disk_is_read(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    point = str(tmp_path / "a share").replace(" ", "\\040")
    table.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / {point} rw - nfs4 host:/x rw\n")
    assert storage.share(tmp_path / "a share" / "deep", table) == "nfs4"
    assert storage.share(tmp_path, table) == "ext4"


def test_bundle_whole_altered_and_licence(tmp_path: Path) -> None:
    files, licence = bundles.check_bundle(bundle_folder("phantom-demo"))
    assert (files.status, licence.status) == ("ok", "ok")
    copy = tmp_path / "copy"
    shutil.copytree(bundle_folder("phantom-demo"), copy)
    assert [c.status for c in bundles.check_bundle(copy)] == ["ok", "ok"]
    (copy / "bundle.json").write_text((copy / "bundle.json").read_text().replace('"phantom-demo"', '"mine"'))
    assert [c.status for c in bundles.check_bundle(copy)] == ["ok", "warning"]
    (copy / "findings.yaml").write_text("x")
    (told,) = bundles.check_bundle(copy)
    assert told.status == "problem" and "findings.yaml" in told.found and str(copy) not in told.found
    assert list(bundles.check_bundle(None)) == []


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        (told,) = pacs.check_listen(taken.getsockname()[1])
        port = taken.getsockname()[1]
    assert told.status == "problem"
    (told,) = pacs.check_listen(port)
    assert told.status == "ok"
    (told,) = pacs.check_listen(70000)
    assert told.status == "problem"


def test_the_command_as_json_and_as_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = [Check("machine", "memory", "problem", "1 GiB free.", "Buy some."), Check("machine", "clock", "ok", "12:00.")]
    monkeypatch.setattr("medvl.doctor.examine.examine", lambda **_: checks)
    assert doctor.run(as_json=True) == 3
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "medvl.doctor/1" and shown["status"] == "problem"
    assert shown["checks"][0]["fix"] == "Buy some."
    assert doctor.run() == 3
    text = capsys.readouterr().out
    assert "PROBLEM" in text and "Buy some." in text and "1 problems" in text
    monkeypatch.setattr("medvl.doctor.examine.examine", lambda **_: checks[1:])
    assert doctor.run() == 0


@pytest.mark.slow
def test_this_machine_is_looked_at_whole_and_no_home_is_told(tmp_path: Path) -> None:
    from medvl.doctor.examine import examine

    checks = examine(out=tmp_path)
    assert {c.area for c in checks} == {"packages", "accelerator", "machine", "decoders", "storage", "notices"}
    assert [c for c in checks if c.name == "the check itself"] == []
    told = json.dumps([c.as_dict() for c in checks])
    assert str(Path.home()) + "/" not in told and str(tmp_path) not in told
