"""The recipes at the papers' sizes, and what their headers give for the releases' behaviour."""

from __future__ import annotations

import shlex

from medvl.recipe import Recipe, load_recipe
from medvl_pipelines.built_in import recipe_file

NAMES = ("renalclip", "cardiac-clip", "medslip")


def released(name: str) -> list[str]:
    """The overrides that the recipe's header gives for the release's behaviour, read as a shell would."""
    lines = recipe_file(name).read_text(encoding="utf-8").partition("# As released, add:\n")[2].splitlines()
    words = shlex.split(" ".join(line[1:] for line in lines if line.startswith("#   --set ")))
    assert words[::2] == ["--set"] * (len(words) // 2)
    return words[1::2]


def recipe_of(name: str, *overrides: str) -> Recipe:
    given = ["model.text.options.path=anywhere"] if name == "renalclip" else []
    return load_recipe(recipe_file(name), [*given, *overrides])
