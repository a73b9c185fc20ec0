"""Prompt banks and the questions that labels answer."""

import numpy as np
import pytest
import torch

from medvl.heads.zeroshot import answered, label_of, pair_of, prompt_vectors
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


def test_pairs_are_unit_means_of_the_prompts_for_each_side() -> None:
    bank = {name: pair_of(*sides) for name, sides in prompt_vectors(LIST, KINDS, _embed).items()}
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


def test_margins_belong_to_the_rows_that_answer() -> None:
    values = [{"renal_mass": 1}, {"renal_mass": 2}, {"renal_mass": 0}, {}, {"renal_mass": 1}]
    labels, margins, rows = answered(LIST["mass"], LIST, values, np.array([0.1, 0.2, 0.3, 0.4, np.nan]))
    assert labels.tolist() == [1, 0]
    assert margins.tolist() == [0.1, 0.3]
    assert rows.tolist() == [0, 2]
    nobody = answered(LIST["large"], LIST, values, np.zeros(5))
    assert [len(part) for part in nobody] == [0, 0, 0]


def test_a_sentence_is_embedded_once_however_often_it_is_asked() -> None:
    seen: list[str] = []

    def embed(texts: list[str]) -> torch.Tensor:
        seen.extend(texts)
        return _embed(texts)

    vectors = prompt_vectors(LIST, KINDS, embed)
    assert len(seen) == len(set(seen))
    assert {n: (p.shape[:2], a.shape[:2]) for n, (p, a) in vectors.items()}["mass@kidney_left"] == ((2, 2), (2, 1))
    assert torch.allclose(vectors["mass@kidney_left"][0][1, 1], _embed(["There is a tumour here."])[0])


def test_a_kind_that_no_region_has_is_asked_nothing() -> None:
    assert prompt_vectors(LIST, {"chest": ("chest",)}, _embed) == {}
