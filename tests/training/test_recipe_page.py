"""The recipe page names every key of the schema with its default, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from medvl.data.targets import KindTargets
from medvl.models.config import ImageTowerConfig, LocaliserConfig, TextTowerConfig
from medvl.models.masked import MaskedOptions
from medvl.models.streams import StreamsConfig
from medvl.models.system import PARTS, SystemConfig
from medvl.recipe import CohortConfig, LocaliseConfig, Recipe, StageConfig

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[BaseModel]] = {
    "The keys": Recipe,
    "`cohort`": CohortConfig,
    "`kinds.KIND`": KindTargets,
    "`model`": SystemConfig,
    "`model.image`": ImageTowerConfig,
    "`model.text`": TextTowerConfig,
    "`model.streams`": StreamsConfig,
    "`model.reconstruct`": MaskedOptions,
    "`stages`": StageConfig,
    "`localiser`": LocaliserConfig,
    "`localise`": LocaliseConfig,
}


def schema(model: type[BaseModel]) -> list[tuple[str, str]]:
    """Keys with their defaults as the page writes them."""
    rows = []
    for name, field in model.model_fields.items():
        value = field.get_default(call_default_factory=True)
        said = "required" if field.is_required() else "below" if isinstance(value, BaseModel) else f"`{json.dumps(value)}`"
        rows.append((name, said))
    return rows


def nested(model: type[BaseModel]) -> set[type[BaseModel]]:
    """Every model that a value of `model` may hold."""
    found = {model}
    for field in model.model_fields.values():
        waiting = [field.annotation]
        while waiting:
            kind = waiting.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= nested(kind)
            waiting += getattr(kind, "__args__", ())
    return found


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_tells_its_keys_and_defaults(title: str) -> None:
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .{5,} \|$", section, re.MULTILINE)
    assert rows == schema(SECTIONS[title])


def test_no_part_of_the_schema_lacks_a_section() -> None:
    assert set(SECTIONS.values()) == nested(Recipe)


def test_the_parts_that_train_are_named() -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("| `train`"))
    assert set(re.findall(r"`(\w+)`", line)) == {"train", *PARTS}
