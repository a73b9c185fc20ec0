"""Kill -9 of ingest, at random points: the dataset that comes of it is the one that nobody stopped."""

import runpy
from pathlib import Path

import pytest
from dataset_files import some

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "ingest_kills.py"


@pytest.mark.slow
def test_killed_runs_end_with_the_same_data(tmp_path: Path) -> None:
    manifest = some(tmp_path / "source", 8)
    told = runpy.run_path(str(BENCHMARK))["run"](manifest, kills=4, workers=2, seed=5, folder=tmp_path)
    assert told["kills"] == 4
    assert told["sha256"]
    assert (told["same"], told["left_over"]) == (told["finished"], [])
