"""What a retraining trains, and how a machine changes it."""

from pathlib import Path

import pytest
import torch
from tiny import OVERRIDES, Tiny

from medvl.errors import ConfigError
from medvl.models.bundle import open_bundle
from medvl.recipe import Recipe, changed, load_recipe
from medvl.retraining.plan import RetrainPlan, continued, load_plan, reads_pixels, recipe_of, started_afresh
from medvl.retraining.presets import Preset, choose
from medvl_pipelines.built_in import plan_file, recipe_file

CPU = Preset("cpu", 1, 1.0, "fp32", 0)
LARGE = Preset("80gb", 4, 2.0, "bf16", 8, 70 * 2**30)
PLAN = RetrainPlan(name="p", summary="s", rate=0.5, passes=4, cheap_passes=10, least_steps=5, heads_steps=30)


@pytest.fixture(scope="module")
def demo() -> Recipe:
    return load_recipe(recipe_file("phantom-demo"))


def test_stages_are_shortened_slowed_and_freed_of_what_only_phantoms_know(demo: Recipe) -> None:
    made = {stage.name: stage for stage in continued(demo, PLAN, CPU, 240, "ours").stages}
    old = {stage.name: stage for stage in demo.stages}
    assert list(made) == [
        "attributes_heads",
        "attributes",
        "text_heads",
        "text",
        "align_frozen",
        "align_joint",
        "align_statements",
    ]
    assert set(made["attributes"].objectives) == {"attributes"}  # marks are of phantoms
    assert (made["attributes"].batch, made["attributes"].steps) == (24, 40)  # 4 passes of 240 in batches of 24
    assert made["attributes"].learning_rate == pytest.approx(old["attributes"].learning_rate / 2)
    assert (made["align_frozen"].batch, made["align_frozen"].steps) == (40, 60)  # 240 / 6; 10 passes, for features are cached
    assert made["align_frozen"].learning_rate == pytest.approx(
        old["align_frozen"].learning_rate * 0.5 * (40 / 128) ** 0.5, rel=0.01
    )
    heads = made["attributes_heads"]
    assert (heads.train, heads.images, heads.steps, heads.learning_rate) == ({"objectives": 1.0}, "cached", 30, 0.003)
    assert made["align_joint"].still_statistics
    assert {stage.precision for stage in made.values()} == {"fp32"}


def test_no_stage_is_longer_than_the_parents_and_none_shorter_than_the_least(demo: Recipe) -> None:
    many = {stage.name: stage for stage in continued(demo, PLAN, CPU, 1_000_000, "ours").stages}
    assert many["attributes"].steps == 1500
    few = {stage.name: stage for stage in continued(demo, PLAN, CPU, 12, "ours").stages}
    assert (few["attributes"].batch, few["attributes"].steps) == (2, 24)
    assert continued(demo, PLAN, CPU, 2, "ours").stages[1].steps == 5


@pytest.mark.parametrize(("skip", "told"), [(("texts",), "skips texts"), (("attributes", "text"), None)])
def test_stages_may_be_left_out_by_name(demo: Recipe, skip: tuple[str, ...], told: str | None) -> None:
    plan = PLAN.model_copy(update={"skip": skip})
    if told:
        with pytest.raises(ConfigError, match=told):
            continued(demo, plan, CPU, 240, "ours")
    else:
        names = [stage.name for stage in continued(demo, plan, CPU, 240, "ours").stages]
        assert names == ["align_frozen", "align_joint_heads", "align_joint", "align_statements"]


def test_a_recipe_from_the_beginning_takes_the_presets_grid_over_the_same_field_of_view(demo: Recipe) -> None:
    made = started_afresh(demo, LARGE, 10_000, "ours")
    old, new = demo.contract["regions"][2], made.contract["regions"][2]
    assert new["grid_dhw"] == [96, 96, 96]
    fields = [[n * mm for n, mm in zip(r["grid_dhw"], r["spacing_mm"], strict=True)] for r in (old, new)]
    assert fields[0] == pytest.approx(fields[1])
    assert made.stages[0].batch == 96 and made.localise is None
    small = started_afresh(load_recipe(recipe_file("renalclip-small")), LARGE, 10_000, "ours")
    assert list(small.model.image.grid_dhw or ()) == small.contract["regions"][0]["grid_dhw"] == [48, 48, 48]


def test_batches_leave_several_to_a_pass() -> None:
    assert [LARGE.batch_of(32, n) for n in (6, 60, 600, 6000)] == [2, 10, 100, 128]


def test_the_bundle_knows_its_recipe_or_the_built_in_one_is_taken(tiny_run: Tiny, demo: Recipe) -> None:
    own = recipe_of(open_bundle(tiny_run.bundle))
    assert own == load_recipe(recipe_file("phantom-demo"), OVERRIDES)
    shipped = open_bundle(Path("configs/bundles/phantom-demo"))
    assert recipe_of(shipped, demo) == demo
    with pytest.raises(ConfigError, match=r"holds no recipe\.json"):
        recipe_of(shipped, load_recipe(recipe_file("renalclip-small")))


def test_presets_by_name() -> None:
    assert choose("auto", "cpu").name == choose("cpu").name == "cpu"
    with pytest.raises(ConfigError, match="did you mean 24gb"):
        choose("24g")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="give --preset cpu"):
            choose("80gb")


def test_the_built_in_plan_and_what_is_wrong_with_others(tmp_path: Path) -> None:
    assert load_plan(plan_file("continue")).blend[0] == 0.0
    wrong = tmp_path / "plan.yaml"
    wrong.write_text("name: a\nsummary: b\nrates: 2\n")
    with pytest.raises(ConfigError, match="rates"):
        load_plan(wrong)


def test_changes_are_made_on_the_resolved_recipe(demo: Recipe) -> None:
    made = changed(continued(demo, PLAN, CPU, 240, "ours"), ["stages.attributes_heads.steps=7"])
    assert made.stages[0].steps == 7
    with pytest.raises(ConfigError, match="nothing is called attribute"):
        changed(demo, ["stages.attribute.steps=7"])


def test_texts_alone_read_no_pixels(demo: Recipe) -> None:
    assert [stage.name for stage in demo.stages if reads_pixels(stage)] == ["attributes", "align_joint"]
