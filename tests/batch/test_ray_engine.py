"""A run over several Ray workers, one of which is killed: every study once. And what is refused before Ray is looked for."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import Tiny, scan_of

from medvl.batch.options import Options
from medvl.batch.ray_engine import Crew, Share, own_signals, spread
from medvl.errors import ConfigError
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.truth import Patient
from medvl.records import Volume
from medvl_pipelines.cluster import crew_of

N_STUDIES = 12


def nothing(*_told: str) -> None:
    """Tells nobody."""


def test_a_cluster_needs_a_ledger_on_a_server(tiny_run: Tiny, tmp_path: Path) -> None:
    share = Share(tiny_run.bundle, tmp_path, Options())
    with pytest.raises(ConfigError, match="postgresql://"):
        spread(share, Crew(2, address="auto"), [], nothing, nothing)


def test_without_ray_its_extra_is_named(tiny_run: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"medvl\[cluster\]"):
        spread(Share(tiny_run.bundle, tmp_path, Options()), Crew(2), [], nothing, nothing)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_options_of_ray_need_ray() -> None:
    assert crew_of("local", None, None, None) is None
    assert crew_of("ray", 3, 0.5, None) == Crew(3, 0.5)
    for bad in (("local", 2, None, None), ("local", None, None, "auto"), ("dask", None, None, None)):
        with pytest.raises(ConfigError, match="--engine"):
            crew_of(*bad)


def owners(ledger: Path) -> set[int]:
    """Processes that hold a study now."""
    if not ledger.exists():
        return set()
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=30) as db:
        try:
            rows = db.execute("SELECT owner FROM studies WHERE state = 'running'").fetchall()
        except sqlite3.OperationalError:
            return set()
    return {int(owner.split("/")[1]) for (owner,) in rows if owner}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra cluster)")
def test_one_of_two_workers_is_killed_and_every_study_is_done_once(tiny_run: Tiny, who: Patient, tmp_path: Path) -> None:
    volume = scan_of(who)
    for number in range(N_STUDIES):
        write_nifti(Volume((volume.hu + number).astype("int16"), volume.geometry), None, tmp_path / f"in{number}.nii.gz")
    inputs = [str(tmp_path / f"in{number}.nii.gz") for number in range(N_STUDIES)]
    command = [sys.executable, "-c", "from medvl_pipelines.cli import main; main()", "infer", *inputs, "-b", str(tiny_run.bundle)]
    command += ["-o", str(tmp_path / "out"), "--engine", "ray", "--workers", "2", "--json"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ledger, killed = tmp_path / "out" / "ledger.sqlite", 0
    while run.poll() is None and not killed:
        held = owners(ledger)
        if held:
            killed = min(held)
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.05)
    told, heard = run.communicate(timeout=900)
    assert killed
    assert "a worker died; another takes its place" in heard
    summary = json.loads(told)
    assert run.returncode == 0, heard
    assert (summary["studies"], summary["done"]) == (N_STUDIES, N_STUDIES)
    with sqlite3.connect(ledger) as db:
        ends = db.execute("SELECT case_id, COUNT(*) FROM events WHERE what = 'done' GROUP BY case_id").fetchall()
        left = db.execute("SELECT COUNT(*) FROM events WHERE what = 'its run died'").fetchone()[0]
    assert sorted(n for _, n in ends) == [1] * N_STUDIES
    assert left  # the killed worker had something in hand, which another did
    assert len(list((tmp_path / "out" / "studies").glob("*/findings.json"))) == N_STUDIES


def test_rays_own_handler_of_sigterm_does_not_stay() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with own_signals():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    assert signal.getsignal(signal.SIGTERM) is before
