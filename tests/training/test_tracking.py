"""Stages and bundles in MLflow's file store: every step once, over interruptions, and nothing sent anywhere."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from medvl.errors import ConfigError
from medvl.models.bundle import open_bundle
from medvl.training import tracking
from medvl.training.tracking import Tracked, track_bundle

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was to be sent")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def client(folder: Path):
    found, _ = tracking._client(str(folder))
    return found


def test_a_stage_that_goes_on_is_one_run(tmp_path: Path) -> None:
    stage, store = tmp_path / "00-align", tmp_path / "store"
    stage.mkdir()
    first = Tracked(stage, str(store), {"steps": 4, "learning_rate": 0.1})
    first.add(1, {"loss": 2.0, "odd": float("nan")})
    first.settle()
    first.add(2, {"loss": 1.9})  # killed before the next checkpoint
    again = Tracked(stage, str(store), {"steps": 4, "learning_rate": 0.1})
    assert again.run_id == first.run_id
    for step, loss in ((2, 1.5), (3, 1.2), (4, 1.1)):
        again.add(step, {"loss": loss})
    again.close()
    held = client(store)
    history = held.get_metric_history(first.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(1, 2.0), (2, 1.5), (3, 1.2), (4, 1.1)]
    run = held.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"steps": "4", "learning_rate": "0.1"}
    assert "odd" not in run.data.metrics


def test_a_bundle_is_known_by_its_hash(tmp_path: Path) -> None:
    bundle = open_bundle(Path(__file__).parents[2] / "configs" / "bundles" / "phantom-demo")
    run = client(tmp_path).get_run(track_bundle(str(tmp_path), bundle))
    assert run.data.tags["medvl.bundle_sha256"] == bundle.sha256
    scores = bundle.values("metrics.json")["validation_auroc"]
    assert run.data.metrics == {f"validation_auroc.{name}": value for name, value in scores.items()}
    assert str(tmp_path.parents[1]) not in "".join(run.data.tags.values())


def test_telemetry_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    client(tmp_path)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()


def test_without_mlflow_the_option_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install 'medvl\\[mlflow\\]'"):
        Tracked(tmp_path, str(tmp_path), {})


def test_the_loop_sends_its_curve(tmp_path: Path) -> None:
    from test_loop import BASE, Toy, no_progress

    from medvl.training.curves import read_curves
    from medvl.training.loop import fit

    fit(Toy(), replace(BASE, mlflow=str(tmp_path / "store")), tmp_path / "stage", no_progress)
    (run,) = client(tmp_path / "store").search_runs(["0", *_experiments(tmp_path / "store")])
    losses = client(tmp_path / "store").get_metric_history(run.info.run_id, "loss")
    assert [each.value for each in losses] == [line["loss"] for line in read_curves(tmp_path / "stage") if "loss" in line]


def _experiments(store: Path) -> list[str]:
    return [each.experiment_id for each in client(store).search_experiments()]
