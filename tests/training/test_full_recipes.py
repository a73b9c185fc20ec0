"""The three recipes at the papers' sizes: what they build, what each line of their headers changes, and what they leave open."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from full_recipes import NAMES, recipe_of, released

from medvl.data.cohort import Cohort
from medvl.data.statements import RegionTexts
from medvl.data.targets import encode_labels
from medvl.errors import ConfigError
from medvl.models.encoder import image_encoder
from medvl.models.masked import MaskedAutoencoder
from medvl.models.streams import ConceptStreams
from medvl.objectives.registry import check_objective
from medvl.recipe import Recipe, StageConfig, as_plain, load_recipe
from medvl.text.ontology import built_in
from medvl.text.relations import concepts
from medvl.training.features import text_versions
from medvl.training.samples import KindData
from medvl_pipelines.built_in import recipe_file


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe with every objective's options in full."""
    plain = dict(as_plain(recipe))
    for stage in plain["stages"]:
        stage["objectives"] = {n: check_objective(n, o)[1].model_dump() for n, o in stage["objectives"].items()}
    return plain


def bottleneck(before: int, width: int, blocks: int) -> int:
    """Weights of a 3D bottleneck stage whose first block has a projection: convolutions without bias, norms of two each."""
    out = 4 * width
    first = before * width + 27 * width**2 + width * out + before * out + 2 * (2 * width + 2 * out)
    other = out * width + 27 * width**2 + width * out + 2 * (2 * width + out)
    return first + (blocks - 1) * other


@pytest.mark.parametrize(
    ("name", "weights", "grid", "width"),
    [
        ("renalclip", 32_986_176, (1, 4, 4), 512),
        ("cardiac-clip", 89_433_600, (16, 18, 18), 768),
        (
            "medslip",
            64 * 2 * 343 + 128 + bottleneck(64, 64, 3) + bottleneck(256, 128, 4) + bottleneck(512, 256, 6),
            (6, 6, 6),
            1024,
        ),
    ],
)
def test_image_towers_have_the_papers_sizes(name: str, weights: int, grid: tuple[int, int, int], width: int) -> None:
    recipe = recipe_of(name)
    assert {spec.grid_dhw for spec in recipe.input_contract.regions} == {recipe.model.image.grid_dhw}
    assert {len(spec.windows_hu) for spec in recipe.input_contract.regions} == {recipe.model.image.in_channels}
    with torch.device("meta"):
        encoder = image_encoder(recipe.model.image)
        found = encoder.eval()(torch.zeros(2, recipe.model.image.in_channels, *recipe.input_contract.regions[0].grid_dhw))
    assert sum(p.numel() for p in encoder.parameters()) == weights
    assert found.grid == grid
    assert found.tokens.shape == (2, math.prod(grid), width)
    assert found.pooled.shape == (2, width)


def test_the_decoder_sees_a_quarter_and_rebuilds_the_rest() -> None:
    recipe = recipe_of("cardiac-clip")
    assert recipe.model.reconstruct is not None
    with torch.device("meta"):
        whole = MaskedAutoencoder(image_encoder(recipe.model.image), recipe.model.reconstruct)  # type: ignore[arg-type]
        found = whole(torch.zeros(1, 1, 128, 144, 144), torch.zeros(1, dtype=torch.int64))
    assert whole.n_seen == 1296
    assert found["reconstruction"].shape == (1, 3888, 512)
    block = 4 * (384**2 + 384) + 8 * 384**2 + 5 * 384 + 4 * 384
    own = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in whole.vit.parameters())
    assert own == 768 * 384 + 384 + 384 + 5 * block + 768 + 384 * 512 + 512


def test_streams_have_the_papers_sizes() -> None:
    config = recipe_of("medslip").model.streams
    assert config is not None
    with torch.device("meta"):
        streams = ConceptStreams(config, 1024, 768, 13, 16)
    layer = 8 * (256**2 + 256) + 2 * 256 * 1024 + 1024 + 256 + 6 * 256
    stream = 1024**2 + 1024 + 1024 * 256 + 256 + 2 * 256 + 4 * layer + 2 * 256 + 256 * 2 + 2 + 256 * 768 + 768
    assert sum(p.numel() for p in streams.parameters()) == 1024**2 + 1024 + 768 * 256 + 256 + 2 * stream


def test_the_attributes_are_those_of_the_dictionary() -> None:
    kidney = next(o for o in built_in() if o.name == "kidney")
    kind = recipe_of("renalclip").kinds["kidney"]
    told = {name: tuple(entry["classes"]) for name, entry in kidney.dictionary.items()}
    assert {name: kind.classes[name] for name in told} == told
    assert {entry["part"] for entry in kidney.dictionary.values() if "part" in entry} == set("RENALH")


def test_the_radius_class_follows_from_the_size() -> None:
    kind = recipe_of("renalclip").kinds["kidney"]
    rows = [{"mass_size_mm": size} for size in (40.0, 40.1, 69.9, 70.0, None)]
    found = encode_labels(rows, kind).classes[:, list(kind.classes).index("renal_radius")]
    assert found.tolist() == [0, 1, 1, 2, -1]


def test_stripped_texts_are_those_of_the_release() -> None:
    """By hand after the release: numbers with a mark behind them go, their full stop too, and sentences are split after that."""
    recipe = recipe_of("renalclip")
    said = ["A mass of 2-3 cm.", "Bosniak grade 2.", "No stone."]
    texts = RegionTexts(np.zeros(1, np.int64), np.zeros(1, np.int64), [said], encode_labels([{}], recipe.kinds["kidney"]))
    cohort = Cohort(np.zeros((1, 1, 1, 1, 1), np.int16), np.ones((1, 1), np.float32), [{}], ("kidney_left",))
    part = KindData(0, recipe.kinds["kidney"], texts, cohort, ((-200.0, 300.0),))
    plain, stripped = (text_versions(part, of("renalclip", "align", *lines), 0)[0] for lines in ([], released("renalclip")))
    assert plain[0] == "A mass of 2-3 cm. Bosniak grade 2. No stone."
    assert stripped[0] == "A mass of 3 cm. Bosniak grade No stone."
    assert set(stripped) == {"A mass of 3 cm. Bosniak grade No stone.", "Bosniak grade No stone. A mass of 3 cm."}
    assert (len(plain), len(stripped)) == (5, 5)


def of(name: str, stage: str, *overrides: str) -> StageConfig:
    return next(found for found in recipe_of(name, *overrides).stages if found.name == stage)


def test_places_that_stand_for_no_place_are_no_prototypes() -> None:
    recipe = recipe_of("medslip")
    known = concepts([o for o in built_in() if o.name in ("kidney", "heart")]).anatomies
    excluded = recipe.stages[0].objectives["prototype_contrastive"]["exclude_anatomies"]
    assert [known[i].key for i in excluded] == ["kidney", "unspecified"]


def test_the_language_model_is_left_to_the_user() -> None:
    with pytest.raises(ConfigError, match=r"give --set model\.text\.options\.path="):
        load_recipe(recipe_file("renalclip"))


@pytest.mark.parametrize("name", NAMES)
def test_every_line_as_released_changes_something_of_its_own(name: str) -> None:
    lines = released(name)
    whole = resolved(recipe_of(name, *lines))
    assert len(lines) >= 4
    for line in lines:
        assert resolved(recipe_of(name, line)) != resolved(recipe_of(name)), line
        assert resolved(recipe_of(name, *(other for other in lines if other != line))) != whole, line


@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_idle(name: str) -> None:
    """What a key needs to matter is there: another kind, other phases, a tower that reads it, an objective that asks for it."""
    values = yaml.safe_load(recipe_file(name).read_text(encoding="utf-8"))
    asked = {objective for stage in values["stages"] for objective in stage["objectives"]}
    texts = {"image_text_contrastive"}
    assert set(values["model"]["text"]) == {"name", "options"}
    assert not any("marks" in kind for kind in values["kinds"].values())
    assert ("embed_dim" in values["model"]) == bool(asked & texts)
    assert ("reconstruct" in values["model"]) == ("masked_image_modeling" in asked)
    assert ("streams" in values["model"]) == bool(asked & {"existence", "prototype_contrastive", "relation_prediction"})
    assert ("classes" in values["kinds"][next(iter(values["kinds"]))]) == bool(asked & (texts | {"attributes"}))
    for stage in values["stages"]:
        assert ("text_versions" in stage) == (stage.get("texts") == "cached")
        assert "kinds" not in stage or len(values["kinds"]) > 1
        assert "phase" not in stage or values["cohort"]["phases"] > 1
        assert not {"statements", "visible_only", "drop_sentences"} & set(stage)
        assert "train" in stage
