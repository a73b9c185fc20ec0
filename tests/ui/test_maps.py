"""Maps that the viewer makes itself: of free words and of likeness, from the images of the result and from no others."""

import json
from pathlib import Path

import numpy as np
import pytest
from evidence_studies import CASE, pane, readings, said
from results_folder import save_nifti, study_json, write_study
from safetensors.numpy import save_file
from tiny import GRID, Tiny, patient, places, scan_of

from medvl.errors import InputError
from medvl.heads.free_text import query_of
from medvl.inference.free_heat import heat_along, read_region
from medvl.models.bundle import open_bundle
from medvl.records import Volume
from medvl_ui import maps
from medvl_ui.embeddings import read_vectors
from medvl_ui.extras import Extras, extras, open_extras
from medvl_ui.results import read_study
from medvl_ui.station import MADE_HELD, Station, open_station, station
from medvl_ui.transport import picture_url

REGION = "kidney_left"
TEXT = "a stone in the left kidney"


@pytest.fixture(scope="module")
def scan() -> Volume:
    """A coarse phantom."""
    return scan_of(patient(3))


def write_read(root: Path, tiny_run: Tiny, scan: Volume, *, turned: bool = False) -> None:
    """A study as inference leaves it: image, place and embedding of a region; `turned` keeps the embedding of other images."""
    bundle = open_bundle(tiny_run.bundle)
    given = open_extras(Extras(bundle=tiny_run.bundle))
    grid = given.predictor.contract[REGION].geometry(places(patient(3))[REGION].center_lps)
    region = {"name": REGION, "found": True, "covered": 1.0, "shape_dhw": list(GRID), "affine_lps": grid.affine_lps.tolist()}
    made = {"name": bundle.name, "sha256": bundle.sha256, "contract": bundle.contract.hash}
    folder = write_study(root, study_json(CASE, regions=[region], bundle=made))
    save_nifti(folder / "image.nii.gz", scan.hu.astype(np.int16), scan.geometry)
    vector = read_region(given.predictor, scan, REGION, grid).embedding
    meta = {"model_sha256": bundle.sha256, "contract_hash": bundle.contract.hash}
    save_file({REGION: -vector if turned else vector}, folder / "embeddings.safetensors", metadata=meta)


def test_a_free_prompts_map_is_that_of_the_model_and_lies_where_the_region_lies(
    tmp_path: Path, tiny_run: Tiny, scan: Volume
) -> None:
    write_read(tmp_path, tiny_run, scan)
    open_station(tmp_path)
    model = extras().predictor
    study, vectors = read_study(tmp_path, CASE), read_vectors(tmp_path, CASE)
    direction = query_of(TEXT, model.embed_texts)[0].double().numpy()
    record = maps.map_along(study, vectors, REGION, direction, TEXT)
    grid = model.contract[REGION].geometry(places(patient(3))[REGION].center_lps)
    expected = heat_along(model, read_region(model, scan, REGION, grid), direction)
    picture = station().picture(CASE, record.heatmap)
    np.testing.assert_allclose(picture.voxels / 255, expected, atol=0.01)
    np.testing.assert_allclose(picture.geometry.affine_lps, grid.affine_lps)
    peak = np.unravel_index(expected.argmax(), expected.shape)
    np.testing.assert_allclose(record.peak_lps, grid.to_lps(peak), atol=1e-6)
    token = picture_url(CASE, record.heatmap).rsplit("/", 1)[1]
    assert station().opens(token.replace("%3A", ":")) == (CASE, record.heatmap)


def test_other_images_than_those_of_the_result_give_no_map(tmp_path: Path, tiny_run: Tiny, scan: Volume) -> None:
    write_read(tmp_path, tiny_run, scan, turned=True)
    open_station(tmp_path)
    study, vectors = read_study(tmp_path, CASE), read_vectors(tmp_path, CASE)
    with pytest.raises(InputError, match="not those of this result"):
        maps.map_along(study, vectors, REGION, np.ones(16), TEXT)
    path = tmp_path / "studies" / CASE / "findings.json"
    told = json.loads(path.read_text())
    del told["regions"][0]["affine_lps"]
    path.write_text(json.dumps(told))
    maps._readings.clear()
    with pytest.raises(InputError, match="Run this study again"):
        maps.map_along(read_study(tmp_path, CASE), vectors, REGION, np.ones(16), TEXT)


def test_the_pane_lays_the_map_over_the_image_until_a_finding_is_chosen(
    tmp_path: Path, monkeypatch, tiny_run: Tiny, scan: Volume
) -> None:
    write_read(tmp_path, tiny_run, scan)
    at = pane(readings(tmp_path, monkeypatch, bundle=open_bundle(tiny_run.bundle)), "Prompts")
    at.text_input(key="lab_text").set_value(TEXT)
    at.button[-1].click().run()
    case, record, told = at.session_state["asked_map"]
    assert (case, told) == (CASE, f"your own words, uncalibrated: {TEXT}, left kidney")
    assert station().picture(CASE, record.heatmap).voxels.shape == GRID
    assert "of 0 other studies of this folder" in said(at)
    at.button(key="lab_map").click().run()
    assert "asked_map" not in at.session_state
    at.button(key="lab_map").click().run()
    assert at.session_state["asked_map"][1] == record


def test_maps_in_memory_are_few_and_one_that_is_gone_says_so(tmp_path: Path) -> None:
    held = Station(tmp_path)
    names = [held.keep(object()) for _ in range(MADE_HELD + 1)]  # type: ignore[arg-type]
    assert held.picture(CASE, names[-1]) is held.made[names[-1]]
    with pytest.raises(InputError, match="no longer kept"):
        held.picture(CASE, names[0])
