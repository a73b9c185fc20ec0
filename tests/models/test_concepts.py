"""A bank of concepts keeps its vectors and names with the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medvl.errors import ConfigError
from medvl.models.concepts import ConceptBank
from medvl.models.tokenizer import train_tokenizer
from medvl.models.towers import TextTower, build_tower

PROMPTS = {
    "cyst": ["A cyst.", "A round fluid lesion."],
    "Müller’s duct": ["A duct."],
    "none": ["No finding.", "Normal.", "Clear."],
}
SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 24, "max_length": 24}


@pytest.fixture(scope="module")
def tower() -> TextTower:
    torch.manual_seed(5)
    texts = [text for group in PROMPTS.values() for text in group]
    return build_tower("bert", options=SHAPE, tokenizer=train_tokenizer(texts * 3, 120))


class Holder(nn.Module):
    """A model with a bank and weights."""

    def __init__(self, bank: ConceptBank) -> None:
        super().__init__()
        self.bank, self.layer = bank, nn.Linear(16, 2)


def test_rows_are_means_of_prompts(tower: TextTower) -> None:
    bank = ConceptBank.from_tower(tower.train(), PROMPTS)
    assert tower.training and not bank.prompts.requires_grad
    tower.eval()
    for row, (name, group) in enumerate(PROMPTS.items()):
        each = [tower(**tower.tokenize([text])).pooled[0].detach() for text in group]
        torch.testing.assert_close(bank()[row], sum(each) / len(each), atol=1e-5, rtol=1e-5)
        assert bank.rows([name]).tolist() == [row]
    assert bank.names == tuple(PROMPTS) and len(bank) == 3 and bank.owner.tolist() == [0, 0, 1, 2, 2, 2]


def test_round_trip_through_safetensors(tower: TextTower, tmp_path: Path) -> None:
    model = Holder(ConceptBank.from_tower(tower, PROMPTS))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    empty = Holder(ConceptBank())
    empty.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    assert empty.bank.names == tuple(PROMPTS)
    assert torch.equal(empty.bank(), model.bank()) and torch.equal(empty.bank.prompts, model.bank.prompts)
    assert not list(empty.bank.parameters())


def test_other_names_are_refused(tower: TextTower) -> None:
    state = Holder(ConceptBank.from_tower(tower, PROMPTS)).state_dict()
    other = ConceptBank.from_vectors({name: torch.ones(16) for name in ("a", "b", "c")})
    with pytest.raises(RuntimeError, match=r"bank\.names_json: the weights hold .*cyst.*, not .*a"):
        Holder(other).load_state_dict(state)
    assert torch.equal(other.prompts, torch.ones(3, 16))
    same = ConceptBank.from_vectors({name: torch.ones(16) for name in PROMPTS})
    Holder(same).load_state_dict(state)
    assert torch.equal(same.prompts, state["bank.prompts"])
    with pytest.raises(RuntimeError, match="Missing key"):
        Holder(ConceptBank()).load_state_dict({k: v for k, v in state.items() if k != "bank.owner"})


def test_stays_full_precision_when_the_model_is_cast() -> None:
    values = torch.randn(2, 16) / 3
    model = Holder(ConceptBank.from_vectors({"a": values[0], "b": values[1]})).bfloat16()
    assert model.layer.weight.dtype == torch.bfloat16
    assert torch.equal(model.bank(), values) and model.bank.names == ("a", "b")
    assert model.double().bank.prompts.dtype == torch.float32


def test_from_vectors_with_several_prompts() -> None:
    several = torch.tensor([[1.0, 3.0], [3.0, 9.0]])
    bank = ConceptBank.from_vectors({"one": torch.tensor([5.0, 7.0]), "two": several})
    assert bank().tolist() == [[5.0, 7.0], [2.0, 6.0]] and bank.width == 2


@pytest.mark.parametrize(
    ("names", "prompts", "owner", "message"),
    [
        (["a", "a"], torch.ones(2, 3), None, "concept a appears twice"),
        (["a", "b"], torch.ones(2, 3), [0, 0], "concept b has no prompt"),
        (["a"], torch.ones(2, 3), [0, 1], "belongs to concept 1 of a bank of 1"),
        (["a"], torch.ones(3), [0], "needs .P, H. vectors"),
        (["a"], torch.full((1, 3), torch.inf), [0], "not finite"),
    ],
)
def test_what_is_refused(names: list[str], prompts: torch.Tensor, owner: list[int] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConceptBank(names, prompts, owner)


def test_more_that_is_refused(tower: TextTower) -> None:
    with pytest.raises(ConfigError, match="at least one concept"):
        ConceptBank.from_tower(tower, {})
    with pytest.raises(ConfigError, match="one width, got"):
        ConceptBank.from_vectors({"a": torch.ones(3), "b": torch.ones(4)})
    with pytest.raises(ConfigError, match="concept mass is not in the bank of 3"):
        ConceptBank.from_tower(tower, PROMPTS).rows(["cyst", "mass"])
