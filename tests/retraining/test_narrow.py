"""A bundle narrowed to some kinds of region answers for them as before, and holds nothing of the others."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundles import SHIPPED
from tiny import Tiny, patient, places, scan_of

from medvl.errors import BundleError, ConfigError
from medvl.inference.predictor import Predictor
from medvl.models.bundle import Bundle, open_bundle, seal
from medvl.models.store import BundleStore
from medvl.retraining.narrow import Narrowed, narrow
from medvl.retraining.plan import recipe_of
from medvl_pipelines.cli import main


@pytest.fixture(scope="module", params=[["kidney"], ["chest"]], ids=lambda kinds: kinds[0])
def made(request: pytest.FixtureRequest, tiny_run: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Narrowed]:
    whole = open_bundle(tiny_run.bundle)
    return whole, narrow(whole, request.param, tmp_path_factory.mktemp("narrow") / "part")


def resealed(source: Path, folder: Path, **values: Any) -> Bundle:
    """A copy of a bundle with keys of JSON files changed: `model={"streams": {}}`."""
    shutil.copytree(source, folder)
    for name, changes in values.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return seal(folder, folder.name, "test")


def run(*argv: str) -> int:
    """The exit code of `medvl ARGV`."""
    with pytest.raises(SystemExit) as left:
        main(argv)
    return int(left.value.code or 0)


def test_answers_stay_the_same(made: tuple[Bundle, Narrowed], monkeypatch: pytest.MonkeyPatch) -> None:
    who = patient(3)
    scan, told = scan_of(who), {}
    for bundle in (made[0], made[1].bundle):
        predictor = Predictor(bundle)
        monkeypatch.setattr(predictor.prepare.localiser, "locate", lambda _volume: places(who))
        told[bundle.name] = {(f.finding.key, f.region): f for f in predictor.predict(scan).findings}
    before, after = told[made[0].name], told[made[1].bundle.name]
    regions = {region for names in made[1].bundle.kinds.values() for region in names}
    assert after.keys() == {key for key in before if key[1] in regions}
    assert len(after) < len(before)
    for key, found in after.items():
        old = before[key]
        assert (found.verdict, found.prompts, found.calibration) == (old.verdict, old.prompts, old.calibration)
        assert [reason.code for reason in found.reasons] == [reason.code for reason in old.reasons]
        for one, two in ((found.score, old.score), (found.margin, old.margin), (found.percentile, old.percentile)):
            assert one == pytest.approx(two, abs=1e-5)
        assert (found.heat is None) == (old.heat is None)


def test_nothing_is_left_of_other_kinds(made: tuple[Bundle, Narrowed]) -> None:
    whole, found = made
    part, (kind,) = found.bundle, found.bundle.kinds
    gone = {region for name, regions in whole.kinds.items() if name != kind for region in regions}
    assert set(part.contract.names) == set(whole.contract.names) - gone
    for file in ("bank", "reference", "familiarity"):
        names = set(part.tensors(f"{file}.safetensors"))
        assert names < set(whole.tensors(f"{file}.safetensors"))
        assert not any(region in name for name in names for region in gone | (set(whole.kinds) - {kind}))
    assert set(part.values("calibration.json")).isdisjoint(found.findings)
    assert set(part.values("metrics.json")["validation_auroc"]).isdisjoint(found.findings)
    assert not any(line.startswith(f"| {key} |") for key in found.findings for line in part.text("README.md").splitlines())
    assert recipe_of(part).kinds.keys() == {kind}
    assert part.values("provenance.json")["narrowed_from"]["sha256"] == whole.sha256


def test_a_survival_model_stays_where_it_reads_only_what_is_kept(tmp_path: Path) -> None:
    found = narrow(open_bundle(SHIPPED), ["kidney"], tmp_path / "without")
    assert found.survival
    assert "survival.json" not in found.bundle
    kidneys = resealed(SHIPPED, tmp_path / "kidneys", survival={"regions": ["kidney_left", "kidney_right"]})
    found = narrow(kidneys, ["kidney"], tmp_path / "with")
    assert not found.survival
    assert found.bundle.values("survival.json") == kidneys.values("survival.json")


@pytest.mark.parametrize(
    ("kinds", "message"),
    [(["kidney", "chest"], "but not all"), ([], "but not all"), (["kidneys"], "did you mean kidney")],
)
def test_what_makes_no_sense_is_refused(kinds: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        narrow(open_bundle(SHIPPED), kinds, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_streams_strange_files_and_folders_that_are_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is there already"):
        narrow(open_bundle(SHIPPED), ["kidney"], tmp_path)
    streams = resealed(SHIPPED, tmp_path / "streams", model={"streams": {"hidden": 16}})
    with pytest.raises(ConfigError, match="read all concepts together"):
        narrow(streams, ["kidney"], tmp_path / "part")
    shutil.copytree(SHIPPED, tmp_path / "more")
    np.save(tmp_path / "more" / "extra.npy", np.zeros(2))
    with pytest.raises(BundleError, match=r"extra\.npy"):
        narrow(seal(tmp_path / "more", "more", "test"), ["kidney"], tmp_path / "part")


def test_the_command_tells_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("bundles", "narrow", "phantom-demo", "--kind", "chest", "--out", str(tmp_path / "chests"))
    assert run(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kinds"] == ["chest"]
    assert "renal_mass" in told["left_out"]["findings"]
    assert told["left_out"]["survival"] is True
    assert open_bundle(tmp_path / "chests").sha256 == told["sha256"]
    assert recipe_of(open_bundle(tmp_path / "chests")).kinds.keys() == {"chest"}
    assert BundleStore(tmp_path / "store").add(tmp_path / "chests").parent == open_bundle(SHIPPED).sha256
    assert run(*words) == 2
    assert "is there already" in capsys.readouterr().err
