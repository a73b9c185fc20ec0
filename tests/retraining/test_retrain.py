"""`medvl retrain` as a whole, on a tiny bundle and a dataset of boxes: what it writes, keeps and refuses."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from dataset_files import MASS, NORMAL, body, made, write_csv
from tiny import Tiny

from medvl.errors import ConfigError
from medvl.geometry import Geometry
from medvl.imaging.nifti import write_nifti
from medvl.models.bundle import open_bundle
from medvl.models.store import BundleStore
from medvl.records import Volume
from medvl.retraining.narrow import narrow
from medvl_pipelines import retrain as verb
from medvl_pipelines.gate import EXIT_FAILED

PLAN = "name: quick\nsummary: s\npasses: 1\ncheap_passes: 1\nleast_steps: 2\nheads_steps: 2\nblend: [0.0, 1.0]\n"


CHEST = " The heart is of normal size. There is no pleural effusion."
CENTERS = {"kidney_left": 40.0, "kidney_right": -40.0, "chest": 0.0}  # x in mm; y and z are 0


def studies(folder: Path, chest: str = CHEST) -> Path:
    """A dataset of thirty boxes, ten to a split, whose table says where the regions lie."""
    rows = []
    for number in range(30):
        hu = body(number, (36, 48, 50))
        write_nifti(Volume(hu, Geometry.centered((0, 0, 0), (36, 48, 50), (4.0, 4.0, 4.0))), None, folder / f"{number}.nii.gz")
        split = ("train", "validation", "test")[number % 3]
        row = {
            "patient": f"MRN-{number:03}",
            "study": f"{number}.nii.gz",
            "report": (MASS, NORMAL)[number // 3 % 2] + chest,
            "split": split,
        }
        for region, x in CENTERS.items():
            row |= {f"{region}_x_mm": x, f"{region}_y_mm": 0, f"{region}_z_mm": 0}
        rows.append(row)
    made(write_csv(folder / "list.csv", rows), folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return studies(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("plan") / "quick.yaml"
    path.write_text(PLAN)
    return str(path)


def wanted(tiny_run: Tiny, dataset: Path, plan: str, out: Path) -> verb.Wanted:
    return verb.Wanted(str(tiny_run.bundle), dataset, out, name="ours", preset="cpu", plan=plan, store=out.parent / "store")


@pytest.fixture(scope="module")
def finished(tiny_run: Tiny, dataset: Path, plan: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("retrained") / "run"
    assert verb.run(wanted(tiny_run, dataset, plan, out)) == EXIT_FAILED  # ten patients are too few for any gate
    return out


@pytest.mark.slow
def test_the_candidate_says_where_it_comes_from(finished: Path, tiny_run: Tiny, dataset: Path) -> None:
    bundle, parent = open_bundle(finished / "bundle"), open_bundle(tiny_run.bundle)
    told = bundle.values("provenance.json")
    assert told["parent"] == {"name": parent.name, "sha256": parent.sha256}
    assert told["data_sha256"] == json.loads((dataset / "dataset.json").read_text())["sha256"]
    assert told["blend"]["share"] in (0.0, 1.0)
    assert bundle.name == "ours" and bundle.contract == parent.contract
    assert bundle.text("tokenizer.json") == parent.text("tokenizer.json")
    assert bundle.values("metrics.json")["cohort"] is None  # it has no phantoms of its own
    kept = {entry.name: entry for entry in BundleStore(finished.parent / "store").entries()}
    assert kept["ours"].parent == parent.sha256 == kept[parent.name].sha256
    assert json.loads((finished / "gate" / "gate.json").read_text())["after"]["sha256"] == bundle.sha256


@pytest.mark.slow
def test_the_same_call_again_trains_nothing(
    finished: Path, tiny_run: Tiny, dataset: Path, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_bundle(finished / "bundle").sha256
    monkeypatch.setattr("medvl.retraining.run.run_stages", lambda *_: pytest.fail("trained again"))
    assert verb.run(wanted(tiny_run, dataset, plan, finished)) == EXIT_FAILED
    assert open_bundle(finished / "bundle").sha256 == before


@pytest.mark.slow
def test_another_folder_ends_in_the_same_bundle(finished: Path, tiny_run: Tiny, dataset: Path, plan: str, tmp_path: Path) -> None:
    assert verb.run(wanted(tiny_run, dataset, plan, tmp_path / "run")) == EXIT_FAILED
    assert open_bundle(tmp_path / "run" / "bundle").sha256 == open_bundle(finished / "bundle").sha256


@pytest.mark.slow
def test_mlflow_gets_a_new_bundle_and_no_old_one(
    finished: Path, tiny_run: Tiny, dataset: Path, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[tuple[str, str]] = []
    monkeypatch.setattr("medvl.training.tracking.track_bundle", lambda where, bundle: noted.append((where, bundle.sha256)))
    verb.run(wanted(tiny_run, dataset, plan, finished), mlflow="noted")
    assert noted == []
    monkeypatch.setattr(verb, "_sha256_in", lambda _: None)  # as where no earlier call came to its end
    verb.run(wanted(tiny_run, dataset, plan, finished), mlflow="noted")
    assert noted == [("noted", open_bundle(finished / "bundle").sha256)]


@pytest.mark.slow
def test_a_folder_of_another_retraining_is_refused(finished: Path, tiny_run: Tiny, dataset: Path) -> None:
    with pytest.raises(ConfigError, match="another plan"):
        verb.run(wanted(tiny_run, dataset, "continue", finished))


@pytest.mark.slow
def test_reports_that_leave_a_kind_out_need_a_parent_without_it(tiny_run: Tiny, plan: str, tmp_path: Path) -> None:
    (tmp_path / "silent").mkdir()
    dataset = studies(tmp_path / "silent", chest="")
    with pytest.raises(ConfigError, match=r"region of kind chest.*narrow PARENT --kind kidney --out"):
        verb.run(wanted(tiny_run, dataset, plan, tmp_path / "run"))
    begun = narrow(open_bundle(tiny_run.bundle), ["kidney"], tmp_path / "kidneys").bundle
    told = replace(wanted(tiny_run, dataset, plan, tmp_path / "again"), parent=str(begun.folder))
    assert verb.run(told) in (0, EXIT_FAILED)
    candidate = open_bundle(tmp_path / "again" / "bundle")
    assert list(candidate.kinds) == ["kidney"]
    assert candidate.contract.names == ("kidney_left", "kidney_right")
    provenance = candidate.values("provenance.json")
    assert provenance["parent"]["sha256"] == begun.sha256
    assert provenance["parent_provenance"]["narrowed_from"]["sha256"] == open_bundle(tiny_run.bundle).sha256


def test_a_dry_run_writes_nothing(
    tiny_run: Tiny, dataset: Path, plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb.run(wanted(tiny_run, dataset, plan, tmp_path / "run"), dry_run=True) == 0
    assert not (tmp_path / "run").exists()
    assert "Preset cpu" in capsys.readouterr().out


@pytest.mark.slow
def test_no_identifier_of_the_spreadsheet_is_in_the_folder(finished: Path) -> None:
    """Patients are called MRN-000 and so on in the manifest; weights, checkpoints, crops and file names are searched."""
    found = [
        path.relative_to(finished)
        for path in finished.rglob("*")
        if path.is_file() and (b"MRN-0" in path.read_bytes() or "MRN-0" in path.name)
    ]
    assert found == []


@pytest.mark.slow
def test_kills_at_random_points_end_in_the_same_bundle(
    finished: Path, tiny_run: Tiny, dataset: Path, plan: str, tmp_path: Path
) -> None:
    line = [
        sys.executable,
        "-c",
        "from medvl_pipelines.cli import main; main()",
        "retrain",
        "--from",
        str(tiny_run.bundle),
        "--data",
        str(dataset),
    ]
    line += [
        "--out",
        str(tmp_path / "run"),
        "--name",
        "ours",
        "--preset",
        "cpu",
        "--plan",
        plan,
        "--store",
        str(tmp_path / "store"),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    chance, code = random.Random(3), None
    for _ in range(4):
        process = subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(chance.uniform(6, 20))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    code = subprocess.run(line, env=env, capture_output=True, check=False).returncode
    assert code == EXIT_FAILED
    assert open_bundle(tmp_path / "run" / "bundle").sha256 == open_bundle(finished / "bundle").sha256
