"""`medvl bundles` and `medvl gate`: what a person types, what comes back, and that a name of the store is a bundle everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_bundles import SHIPPED, gate, make
from pretend import cohort
from safetensors.torch import load_file, save_file
from test_cli import run

from medvl.errors import BundleError
from medvl.models.bundle import Bundle, open_bundle, seal
from medvl.models.store import BundleStore
from medvl.models.store_diff import difference
from medvl_pipelines.built_in import bundle_folder, gates


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BundleStore:
    monkeypatch.setenv("MEDVL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")
    return BundleStore()


@pytest.fixture
def ours(tmp_path: Path) -> Bundle:
    return make(tmp_path / "ours", "ours", "ours")


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert run("bundles", *argv, "--json") == 0
    return json.loads(capsys.readouterr().out)


def gate_file(tmp_path: Path, after: Bundle, *, passed: bool = True) -> Path:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(gate(open_bundle(SHIPPED).sha256, after.sha256, passed=passed)))
    return path


def test_from_adding_to_rollback(ours: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, record = str(ours.folder), str(gate_file(tmp_path, ours))
    assert run("bundles", "add", folder, "--parent", "phantom-demo", "--gate", record, "--data-sha256", "d" * 64) == 0
    assert "gate: passed" in capsys.readouterr().out
    assert run("bundles", "promote", "ours") == 0
    assert f"In use: ours-{ours.sha256[:12]}" in capsys.readouterr().out
    rows = {row["bundle"]: row for row in said(capsys, "list")["bundles"]}
    assert (
        rows[f"ours-{ours.sha256[:12]}"] | {"in_use": True, "gate": "passed", "data_sha256": "d" * 64}
        == rows[f"ours-{ours.sha256[:12]}"]
    )
    assert [row["where"] for row in rows.values()] == ["built in", "store", "store"]
    told = said(capsys, "show", "promoted")
    assert told["lineage"] == [{"sha256": open_bundle(SHIPPED).sha256, "bundle": "phantom-demo (built in)"}]
    assert told["code_version"] == "medvl test"
    assert said(capsys, "rollback", "--reason", "trial")["now"] == open_bundle(SHIPPED).sha256
    assert [line["action"] for line in said(capsys, "history")] == ["promote", "rollback"]


@pytest.mark.parametrize("verb", ["list", "history"])
def test_text_of_an_empty_store(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bundles", verb) == 0
    assert capsys.readouterr().out


def test_text_names_the_bundle_in_use(ours: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bundles", "add", str(ours.folder), "--recipe", "by hand") == 0
    assert run("bundles", "promote", "ours", "--force", "--reason", "first of this site") == 0
    assert run("bundles", "list") == run("bundles", "history") == run("bundles", "show", "ours") == 0
    shown = capsys.readouterr().out
    assert "in use" in shown
    assert "--bundle promoted is ours-" in shown
    assert "promote, forced" in shown
    assert "first of this site" in shown
    assert "by hand" in shown


def test_refusals_leave_with_2_and_say_the_next_step(ours: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, told in (
        (["promote", "ours"], "the store is empty"),
        (["rollback"], "nothing to go back to"),
        (["show", "promoted"], "no bundle is promoted"),
        (["verify", "promoted"], "no bundle is promoted"),
        (["verify", "phantom-dem"], "did you mean phantom-demo?"),
        (["add", str(ours.folder), "--gate", str(tmp_path / "none.json")], "give the gate.json"),
    ):
        assert run("bundles", *argv) == 2
        assert told in capsys.readouterr().err
    assert run("bundles", "add", str(ours.folder), "--gate", str(gate_file(tmp_path, ours, passed=False))) == 0
    assert run("bundles", "promote", "ours") == 2
    assert "its gate failed" in capsys.readouterr().err
    assert run("bundles", "promote", "ours", "--force") == 2
    assert "--reason" in capsys.readouterr().err


def test_names_of_the_store_are_bundles_everywhere(ours: Bundle, store: BundleStore) -> None:
    with pytest.raises(BundleError, match="no bundle is promoted"):
        bundle_folder("promoted")
    entry = store.add(ours.folder)
    kept = store.folder_of(entry)
    assert [bundle_folder(name) for name in ("ours", entry.key, ours.sha256[:8])] == [kept] * 3
    assert bundle_folder("phantom-demo").name == "phantom-demo"
    assert bundle_folder(str(ours.folder)) == ours.folder
    store.promote("ours", force=True, reason="test")
    assert bundle_folder("promoted") == kept
    with pytest.raises(BundleError, match="did you mean ours"):
        bundle_folder("our")


def test_verify_takes_the_promoted_one(ours: Bundle, store: BundleStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.add(ours.folder)
    store.promote("ours", force=True, reason="test")
    assert run("bundles", "verify", "promoted") == 0
    assert f"bundle {ours.sha256[:12]}" in capsys.readouterr().out
    (store.folder_of(store.find("ours")) / "weights.safetensors").write_text("altered")
    assert run("bundles", "verify", "promoted") == 2
    assert "was altered" in capsys.readouterr().err


def changed_copy(folder: Path) -> Bundle:
    """The built-in bundle with one moved weight, one new threshold, one finding less and one contract value changed."""
    folder.mkdir()
    for file in open_bundle(SHIPPED).manifest["files"]:
        (folder / file).write_bytes((SHIPPED / file).read_bytes())
    weights = load_file(folder / "weights.safetensors")
    weights["clip.text_projection.weight"] = (weights["clip.text_projection.weight"].float() * 1.5).half()
    save_file(weights, folder / "weights.safetensors")
    fitted = json.loads((folder / "calibration.json").read_text())
    fitted["renal_cyst"]["threshold"] = 0.123
    del fitted["renal_stone"]
    (folder / "calibration.json").write_text(json.dumps(fitted))
    contract = json.loads((folder / "contract.json").read_text())
    contract["regions"][2]["spacing_mm"] = [4.0, 4.0, 4.0]
    (folder / "contract.json").write_text(json.dumps(contract))
    return seal(folder, "changed", "medvl test")


def test_diff_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = open_bundle(SHIPPED), changed_copy(tmp_path / "changed")
    told = difference(old, new)
    assert told["files"]["changed"] == ["calibration.json", "contract.json", "weights.safetensors"]
    assert list(told["contract"]) == ["regions.chest.spacing_mm"]
    assert told["contract"]["regions.chest.spacing_mm"][1] == [4.0, 4.0, 4.0]
    assert set(told["calibrations"]) == {"renal_cyst", "renal_stone"}
    assert told["calibrations"]["renal_cyst"]["after"]["threshold"] == 0.123
    assert told["calibrations"]["renal_stone"]["after"] is None
    moved = {part: found["moved"] for part, found in told["weights"].items()}
    own = old.tensors("weights.safetensors", "clip.text_projection.")
    norm = sum(float(v.square().sum()) for v in own.values()) ** 0.5
    alone = float(own["weight"].square().sum()) ** 0.5
    assert moved.pop("clip.text_projection") == pytest.approx(0.5 * alone / norm, rel=1e-3)
    assert set(moved.values()) == {0.0}
    assert run("bundles", "diff", "phantom-demo", str(new.folder)) == 0
    shown = capsys.readouterr().out
    for text in ("regions.chest.spacing_mm", "renal_stone", "clip.text_projection"):
        assert text in shown
    assert run("bundles", "diff", "phantom-demo", "phantom-demo") == 0
    assert "are the same bundle" in capsys.readouterr().out


def without_survival(folder: Path, name: str) -> Bundle:
    """The built-in bundle under another name, which predicts no survival."""
    folder.mkdir()
    for file in set(open_bundle(SHIPPED).manifest["files"]) - {"survival.json"}:
        (folder / file).write_bytes((SHIPPED / file).read_bytes())
    (folder / "README.md").write_text(f"{name}\n")
    return seal(folder, name, "medvl test")


def embedded(folder: Path, bundle: Bundle) -> str:
    """A made-up cohort that says it was embedded by a bundle, asked two of its findings."""
    table = cohort(60)
    source = {**table.source, "model": bundle.name, "model_sha256": bundle.sha256}
    replace(table, findings=("renal_mass", "renal_cyst"), source=source, evidence=None).save(folder)
    return str(folder)


@pytest.mark.parametrize(("least", "code"), [(40, 0), (100, 6)])
def test_gate_on_the_command_line(
    least: int, code: int, tmp_path: Path, store: BundleStore, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = (without_survival(tmp_path / name, name) for name in ("old", "new"))
    shipped = (SHIPPED.parents[1] / "gates" / "default.yaml").read_text()
    rules = tmp_path / "rules.yaml"
    rules.write_text(shipped.replace("draws: 2000", "draws: 100").replace("patients: 40", f"patients: {least}"))
    options = ["--embedded-before", embedded(tmp_path / "one", old), "--embedded-after", embedded(tmp_path / "two", new)]
    options += ["--policy", str(rules), "--out", str(tmp_path / "out"), "--keep"]
    assert run("gate", str(old.folder), str(new.folder), *options) == code
    assert ("Passed: new" if code == 0 else "FAILS too_few_patients") in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert (record["before"]["sha256"], record["after"]["sha256"]) == (old.sha256, new.sha256)
    assert len(record["before"]["embedded_sha256"]) == 64
    assert store.gates_of(store.find("new")) == (record,)
    assert run("bundles", "promote", "new") == (0 if code == 0 else 2)
    assert (store.current() is not None) is (code == 0)


def test_gate_wants_its_arguments(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("gate", "--policy", "list") == 0
    assert "default: " in capsys.readouterr().out
    assert list(gates()) == ["default"]
    assert run("gate", "phantom-demo") == 2
    assert "--embedded-before" in capsys.readouterr().err
    folder = str(tmp_path)
    options = ["--embedded-before", folder, "--embedded-after", folder, "--out", folder, "--policy", "defualt"]
    assert run("gate", "phantom-demo", "phantom-demo", *options) == 2
    assert "did you mean default?" in capsys.readouterr().err
