"""The reference page and the docstrings name every objective, what it needs, its options and where it comes from."""

import re
from pathlib import Path

import pytest

from medvl.objectives.registry import OBJECTIVES, Options

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "objectives.md").read_text(encoding="utf-8")
ROWS = {cells[0].strip(" `"): cells for line in PAGE.splitlines() if len(cells := line.strip("|").split("|")) == 5}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_row_with_its_needs_options_and_defaults(name: str) -> None:
    kind = OBJECTIVES[name]
    assert name in ROWS
    for need in kind.needs:
        assert f"`{need}`" in ROWS[name][1]
    fields = {k: v for k, v in kind.options_type.model_fields.items() if k not in Options.model_fields}
    assert set(re.findall(r"`(\w+)`", ROWS[name][2])) == set(fields)
    for option, field in fields.items():
        if isinstance(field.default, bool | float | int | str):
            shown = re.search(rf"`{option}` \(([^)]+)\)", ROWS[name][2])
            assert shown, option
            value = str(field.default).lower() if not isinstance(field.default, float) else f"{field.default:.3g}"
            assert shown[1] == value


def test_no_row_is_of_something_else() -> None:
    named = {name for name in ROWS if re.fullmatch(r"[a-z]+(_[a-z]+)*", name)} - {"name"}
    assert named == set(OBJECTIVES)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_says_its_source(name: str) -> None:
    assert "Source: " in (OBJECTIVES[name].__doc__ or "")
