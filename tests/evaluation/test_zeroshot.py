"""Prompt banks and the questions that labels answer."""

import numpy as np
import pytest
import torch

from medvl.evaluation.zeroshot import answered, label_of, prompt_bank
from medvl.text.prompts import load_findings

LIST = load_findings(
    {
        "name": "two",
        "findings": [
            {
                "key": "mass",
                "label": "Mass",
                "region": "kidney",
                "truth": "renal_mass",
                "templates": ["{}.", "There is {} here."],
                "present": ["a mass in the {side} kidney", "a tumour"],
                "absent": ["no mass"],
            },
            {
                "key": "large",
                "label": "Large",
                "region": "kidney",
                "truth": "mass_large",
                "given": "mass",
                "present": ["large"],
                "absent": ["small"],
            },
        ],
    }
)
KINDS = {"kidney": ("kidney_left", "kidney_right")}


def _embed(texts: list[str]) -> torch.Tensor:
    """A unit vector for each text, by its letters."""
    rows = torch.tensor([[text.lower().count(c) + 0.1 for c in "aeiourl"] for text in texts])
    return rows / rows.norm(dim=1, keepdim=True)


def test_bank_holds_unit_means_of_the_prompts_for_each_side() -> None:
    bank = prompt_bank(LIST, KINDS, _embed)
    assert set(bank) == {"mass@kidney_left", "mass@kidney_right", "large@kidney_left", "large@kidney_right"}
    for pair in bank.values():
        assert pair.shape == (2, 7)
        assert torch.allclose(pair.norm(dim=1), torch.ones(2))
    said = ["A mass in the left kidney.", "A tumour.", "There is a mass in the left kidney here.", "There is a tumour here."]
    mean = np.mean([_embed([t])[0].numpy() for t in said], axis=0)
    assert np.allclose(bank["mass@kidney_left"][0], mean / np.linalg.norm(mean), atol=1e-6)
    none = np.mean([_embed([t])[0].numpy() for t in ("No mass.", "There is no mass here.")], axis=0)
    assert np.allclose(bank["mass@kidney_left"][1], none / np.linalg.norm(none), atol=1e-6)
    assert not torch.allclose(bank["mass@kidney_left"][0], bank["mass@kidney_right"][0])
    assert torch.allclose(bank["mass@kidney_left"][1], bank["mass@kidney_right"][1])


@pytest.mark.parametrize(
    ("labels", "mass", "large"),
    [
        ({"renal_mass": 1, "mass_large": 1}, 1, 1),
        ({"renal_mass": 1, "mass_large": 0}, 1, 0),
        ({"renal_mass": 0, "mass_large": 0}, 0, None),
        ({"renal_mass": 2, "mass_large": 1}, None, None),
        ({"renal_mass": -1, "mass_large": -1}, None, None),
        ({"renal_mass": 1, "mass_large": 2}, 1, None),
        ({}, None, None),
        ({"renal_mass": True, "mass_large": False}, 1, 0),
    ],
)
def test_what_labels_answer(labels: dict, mass: int | None, large: int | None) -> None:
    assert label_of(LIST["mass"], labels, LIST) == mass
    assert label_of(LIST["large"], labels, LIST) == large


def test_margins_belong_to_the_rows_that_answer_and_to_their_own_side() -> None:
    rng = np.random.default_rng(0)
    bank = {f"mass@kidney_{s}": torch.tensor(rng.normal(size=(2, 5))) for s in ("left", "right")}
    vectors = torch.tensor(rng.normal(size=(5, 5)))
    values = [{"renal_mass": 1}, {"renal_mass": 2}, {"renal_mass": 0}, {}, {"renal_mass": 1}]
    names = ["kidney_left", "kidney_left", "kidney_right", "kidney_right", "chest"]
    labels, margins = answered(LIST["mass"], LIST, list(zip(names, values, vectors, strict=True)), bank)
    assert labels.tolist() == [1, 0]
    expected = [float(vectors[i] @ bank[f"mass@{names[i]}"][0] - vectors[i] @ bank[f"mass@{names[i]}"][1]) for i in (0, 2)]
    assert np.allclose(margins, expected)
    nobody = answered(LIST["large"], LIST, list(zip(names, values, vectors, strict=True)), bank)
    assert [len(part) for part in nobody] == [0, 0]
