"""The command line: help, arguments, exit codes, and that every verb calls its module as that module expects."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest

import medvl
import medvl_pipelines
from medvl.errors import BundleError, ConfigError, InputError
from medvl_pipelines import console
from medvl_pipelines.cli import main

VERBS = [
    *("inspect", "convert", "phantom", "ingest", "infer", "view", "train", "embed", "evaluate", "search", "draft", "demo"),
    *("gate", "bundles list", "bundles show", "bundles verify", "bundles add", "bundles promote", "bundles rollback"),
    *("bundles history", "bundles diff", "retrain"),
    *("index build", "index info", "index verify", "index delete", "index compact"),
    *("findings check", "findings calibrate", "listen", "doctor", "drift", "deidentify", "pack"),
    *("review export", "review audit"),
    *("export", "import-bundle", "import-release"),
]


def run(*argv: str) -> int:
    """The exit code of `medvl ARGV`, run in this process."""
    with pytest.raises(SystemExit) as left:
        main(argv)
    return int(left.value.code or 0)


def put_in_place(monkeypatch: pytest.MonkeyPatch, verb: str, run: object) -> None:
    """Let `verb` call `run` instead of its own module."""
    monkeypatch.setattr(medvl_pipelines, verb, SimpleNamespace(run=run), raising=False)


def failing(error: Exception):
    def run(*_args: object, **_options: object) -> None:
        raise error

    return run


def test_console_script_starts_and_lists_every_verb() -> None:
    script = Path(sys.executable).with_name("medvl")
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, timeout=60)
    for verb in VERBS:
        assert verb.split()[0] in shown.stdout
    assert "not a medical device" in shown.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"medvl {medvl.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*verb.split(), "--help") == 0
    shown = capsys.readouterr().out
    assert f"medvl {verb}" in shown
    assert "Example" in shown


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["nonsense"], "nonsense"),
        (["inspect"], "SOURCE"),
        (["inspect", "x", "--colour"], "--colour"),
        (["phantom", "--out", "x", "--n", "0"], "--n"),
        (["phantom", "--out", "x", "--format", "jpeg"], "jpeg"),
        (["infer", "x", "--bundle", "b", "--out", "y", "--device", "tpu"], "tpu"),
        (["view", "--results", "x", "--port", "70000"], "--port"),
        (["bundles", "verify"], "NAME"),
    ],
)
def test_wrong_arguments_leave_with_2_and_name_the_culprit(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["inspect", "missing"],
        ["convert", "missing", "--out", "o"],
        ["infer", "missing", "--bundle", "b", "--out", "o"],
        ["infer", "missing", "missing too", "--bundle", "b", "--out", "o"],
        ["view", "--results", "missing"],
        ["evaluate", "b", "--embedded", "missing"],
    ],
)
def test_missing_input_stops_before_any_work(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    put_in_place(monkeypatch, argv[0], failing(AssertionError("the verb was started")))
    assert run(*argv) == 2
    assert "no such file or folder: missing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begun", [True, False])
def test_an_input_that_is_missing_tonight_does_not_keep_a_run_from_the_others(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    (tmp_path / "o" / "studies" if begun else there).mkdir(parents=True)
    seen: list[object] = []
    put_in_place(monkeypatch, "infer", lambda inputs, *_a, **_k: seen.extend(inputs) or 3)
    inputs = ["missing", *([] if begun else [str(there)])]
    assert run("infer", *inputs, "--bundle", "phantom-demo", "--out", str(tmp_path / "o")) == 3
    assert seen == inputs


@pytest.mark.parametrize("override", ["optim.lr", "=1"])
def test_override_without_key_and_value_is_refused(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "recipe.yaml", "--out", "o", "--set", override) == 2
    assert "KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no key 'lrr'; did you mean 'lr'?"), 2),
        (BundleError("weights.safetensors was altered"), 2),
        (InputError("missing_slice", "a gap of 5.0 mm at z=-141.0"), 3),
    ],
)
def test_our_errors_are_one_line_without_traceback(
    error: Exception, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_place(monkeypatch, "inspect", failing(error))
    assert run("inspect", str(tmp_path)) == code
    assert capsys.readouterr().err == f"medvl: {error}\n"


def test_crash_shows_where_but_no_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_place(monkeypatch, "inspect", failing(ValueError("DOE^JANE")))
    assert run("inspect", str(tmp_path)) == 1
    shown = capsys.readouterr().err
    assert "ValueError" in shown
    assert "test_cli.py" in shown
    assert "DOE" not in shown

    monkeypatch.setenv("MEDVL_DEBUG", "1")
    assert run("inspect", str(tmp_path)) == 1
    assert "ValueError: DOE^JANE" in capsys.readouterr().err


def test_bundle_without_contract_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bundles", "verify", str(tmp_path)) == 2
    assert "medvl: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["inspect", ".", "--json"],
        ["convert", ".", "--out", "o"],
        ["phantom", "--out", "o", "--n", "2", "--format", "nifti", "--format", "dicom", "--start", "5", "--masks"],
        ["infer", ".", ".", "--bundle", "b", "--out", "o", "--device", "cpu", "--json"],
        ["view", "--results", ".", "--port", "8600", "--no-browser"],
        ["train", "recipe.yaml", "--out", "o", "--set", "optim.lr=1e-4"],
        ["evaluate", "b", "--embedded", ".", "--against", "c=d", "--training", ".", "--out", "o", "--draws", "200", "--json"],
        ["demo", "--out", "o", "--n", "1", "--no-view"],
    ],
)
def test_each_verb_calls_its_module_as_the_module_expects(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"medvl_pipelines.{argv[0]}")
    stand_in = create_autospec(module.run, return_value=0)
    put_in_place(monkeypatch, argv[0], stand_in)
    assert run(*argv) == 0
    stand_in.assert_called_once()


def test_json_is_one_plain_document(capsys: pytest.CaptureFixture[str]) -> None:
    long_and_marked = {"path": "[bold]" + "x" * 300}
    console.emit_json(long_and_marked)
    assert json.loads(capsys.readouterr().out) == long_and_marked
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.emit_json({"score": float("nan")})


def test_tracked_items_come_back_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.track(["a", "b"], "reading")) == ["a", "b"]
    assert capsys.readouterr().out == ""
