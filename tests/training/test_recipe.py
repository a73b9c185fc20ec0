"""A recipe says what is wrong with it, and where."""

from pathlib import Path

import pytest
from tiny import OVERRIDES

from medvl.errors import ConfigError
from medvl.recipe import as_plain, load_recipe
from medvl_pipelines.built_in import recipe_file

BUILT_IN = recipe_file("phantom-demo")


def test_overrides_change_their_key_and_no_other() -> None:
    plain, changed = (as_plain(load_recipe(BUILT_IN, words)) for words in ([], ["stages.align_joint.steps=7", "seed=3"]))
    names = [stage["name"] for stage in plain["stages"]]
    joint = names.index("align_joint")
    assert changed["stages"][joint]["steps"] == 7
    assert changed["seed"] == 3
    changed["stages"][joint]["steps"], changed["seed"] = plain["stages"][joint]["steps"], plain["seed"]
    assert changed == plain


def test_overrides_may_hold_lists_and_groups() -> None:
    recipe = load_recipe(BUILT_IN, OVERRIDES)
    assert recipe.input_contract["chest"].grid_dhw == (16, 20, 24)
    assert recipe.localiser.channels == (4, 8, 8)
    assert recipe.localise.warmup == 1


@pytest.mark.parametrize(
    ("override", "place", "nearest"),
    [
        ("localsie.steps=5", "localsie", "localise"),
        ("stages.text.stepps=5", "stages.1.stepps", "steps"),
        ("cohort.n_trian=5", "cohort.n_trian", "n_train"),
    ],
)
def test_unknown_key_names_the_nearest(override: str, place: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown key {place}; did you mean {nearest}\?"):
        load_recipe(BUILT_IN, [override])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("stages.attributes.steps=many", "stages.0.steps.*many"),
        ("stages.atributes.steps=5", "did you mean attributes"),
        ("stages.text.train={txt: 1.0}", "txt.*known parts"),
        ("stages.text.objectives={text_atributes: {}}", "did you mean text_attributes"),
        ("stages.text.objectives={text_attributes: {wieght: 2}}", "wieght.*known: .*weight"),
        ("model.image.kinds=[kidney]", "kidney"),
        ("model.text.pooling=last", "model.text.pooling.*last"),
        ("seed.of.all=1", "seed is a value"),
        ("no sign", "key=value"),
        ("contract.axes=LPS", "SPL"),
        ("contract.fill_hu=0.5", "fill_hu"),
        ("contract.fill_hu=air", "contract.*air"),
        ("seed=[1", "not valid YAML"),
    ],
)
def test_wrong_value_is_told_with_its_place(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_recipe(BUILT_IN, [override])


@pytest.mark.parametrize("text", ["- a list", "a: [", ""])
def test_file_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_recipe(path)


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="phantom-demo"):
        recipe_file("phantom-dmeo")
    with pytest.raises(ConfigError, match="no recipe"):
        load_recipe(tmp_path / "none.yaml")
