"""Options of `medvl train` in this process: what they show, refuse and leave alone."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from shrunk import overrides

from medvl.errors import ConfigError
from medvl.recipe import load_recipe
from medvl.training.loop import Diverged
from medvl_pipelines import console, progress, train, train_report
from medvl_pipelines.built_in import recipe_file, recipes
from medvl_pipelines.cli import main

RECIPE = "medslip-small"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(argv)
    return int(left.value.code or 0)


def test_recipes_are_listed_without_other_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(recipes())
    assert any(line.startswith("medslip-small: MeDSLIP") for line in lines)


def test_dry_run_counts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert train.run(RECIPE, out, [*overrides(RECIPE), "stages.concepts.accumulate=3"], dry_run=True) == 0
    shown = capsys.readouterr().out
    assert "16 training and 8 validation phantoms" in shown
    assert "2. concepts: 4 steps of 3 x 6, 72 samples" in shown
    embeddings = (300 + 96 + 2) * 16 + 2 * 16  # words, places, segments, norm
    layer = 4 * (16 * 16 + 16) + 2 * 16 + (16 * 32 + 32) + (32 * 16 + 16) + 2 * 16
    assert f"text {(embeddings + layer) / 1e3:.1f} k" in shown
    assert not out.exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_recipe_for_other_patients_is_not_trained_on_phantoms(tmp_path: Path, dry_run: bool) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"not for phantoms.*`python benchmarks/painted_kits23\.py --data FOLDER`.*--table"):
        train.run("painted-kidney", out, dry_run=dry_run)
    assert not out.exists()


def test_the_command_that_gives_the_data_is_there() -> None:
    command = load_recipe(recipe_file("painted-kidney")).data_from
    assert command is not None
    assert (Path(__file__).parents[2] / command.split()[1]).is_file()
    assert command.split()[1] in recipes()["painted-kidney"]


def test_outcomes_known_by_half_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(events: list[bool | None]) -> str:
        cases = [{"truth": {"time_days": 100, "event": event}} for event in events]
        train_report.tell(
            SimpleNamespace(train={"kidney": SimpleNamespace(cohort=SimpleNamespace(cases=cases))}, stages=tmp_path), None, None
        )
        return " ".join(capsys.readouterr().out.split())

    monkeypatch.setattr(train_report, "_receipts", lambda work: {})
    assert "Left out of survival: 2 training patients" in told([True, None, False, None])
    assert "Left out" not in told([True, False])


def test_a_stage_that_diverges_is_named_with_what_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise Diverged("the loss of batch 3 is not finite")

    monkeypatch.setattr("medvl.training.run.fit", broken)
    assert train.run(RECIPE, tmp_path, overrides(RECIPE), device="cpu") == 4
    told = capsys.readouterr().err.replace("\n", " ")
    assert "stage text diverged: the loss of batch 3" in told
    assert "--set stages.text.learning_rate=0.0003" in told


def test_options_of_the_machine_leave_the_stage_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.run(RECIPE, tmp_path, overrides(RECIPE, 2), device="cpu", threads=1) == 0
    first = capsys.readouterr()
    assert "MFU" in first.out
    assert "concepts 2/2  loss" in first.err
    folders = sorted(path.name for path in (tmp_path / "stages").iterdir())
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.glob("stages/*/weights.safetensors")}
    assert len(weights) == 2
    changed = {"device": "auto", "checkpoint_minutes": 0.0, "tensorboard": True, "threads": 2, "parallel": "fsdp"}
    assert train.run(RECIPE, tmp_path, overrides(RECIPE, 2), **changed) == 0
    assert sorted(path.name for path in (tmp_path / "stages").iterdir()) == folders
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert "loss" not in capsys.readouterr().err


def test_a_stop_outside_the_steps_is_told_and_leaves_the_handlers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("medvl.training.run.open_workspace", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    assert train.run(RECIPE, tmp_path, overrides(RECIPE), device="cpu") == 143
    assert "the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_tensorboard_no_events_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not train.machine_of("cpu", "ddp", None, 2.0, tensorboard=False).tensorboard
    monkeypatch.setattr(train, "find_spec", lambda _: None)
    assert not train.machine_of("cpu", "ddp", None, 2.0, tensorboard=None).tensorboard
    assert train.machine_of("cpu", "ddp", None, 2.0, tensorboard=True).tensorboard  # whose stage then says what to install


def test_no_terminal_gets_a_line_a_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    console.err.cache_clear()
    with progress.Shown() as told:
        for step in range(1, 101):
            told("align", step, 100, {"loss": 1 / step, "rate": 0.1})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == [f"{10 * n}/100" for n in range(1, 11)]
    assert "loss 0.010" in lines[-1]
    assert lines[0].endswith(" left")
    with progress.Shown(shows=False) as told:
        told("align", 1, 1, {})
    assert capsys.readouterr().err == ""


def test_tensorboard_events_are_written_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert train.run(RECIPE, tmp_path, overrides(RECIPE, 2), device="cpu") == 0
    assert len(list(tmp_path.glob("stages/*/tensorboard/events*"))) == 2
    assert json.loads(next(tmp_path.glob("stages/concepts-*/receipt.json")).read_text())["steps"] == 2
