"""Both towers: scores that split over the grid without remainder, texts that padding does not change."""

import pytest
import torch
from torch.nn import functional

from medvl.models.clip import RegionClip
from medvl.models.config import ClipConfig, ImageTowerConfig, TextTowerConfig
from medvl.models.tokenizer import train_tokenizer

CORPUS = ["A Mass of 42 mm in the left kidney.", "No hydronephrosis.", "The right kidney measures 108 mm."] * 3


@pytest.fixture(scope="module")
def model() -> RegionClip:
    """A small untrained pair of towers with biases and running statistics that are not zero and one."""
    torch.manual_seed(3)
    image = ImageTowerConfig(widths=(8, 8, 12, 12), token_dim=16, value_dim=4, n_queries=3, peak_dim=8)
    text = TextTowerConfig(vocab_size=100, hidden_size=16, layers=2, heads=2, intermediate_size=24, max_length=40)
    made = RegionClip(ClipConfig(image=image, text=text, embed_dim=10), train_tokenizer(CORPUS, 100))
    with torch.no_grad():
        for name, values in made.named_parameters():
            if name.endswith("bias"):
                values.normal_(0, 0.3)
        for _ in range(3):
            made.image(torch.rand(4, 2, 20, 24, 28))
    return made.eval()


@pytest.mark.parametrize("kind", [0, 1])
def test_contributions_add_up_to_the_cosine(model: RegionClip, kind: int) -> None:
    pixels, kinds = torch.rand(2, 2, 20, 24, 28), torch.full((2,), kind)
    directions = functional.normalize(torch.randn(5, 10), dim=-1)
    with torch.no_grad():
        units, parts = model.contributions(pixels, kinds, directions)
        alone = model.embed_image(pixels, kinds)
        length = model.project(model.pooled(pixels, kinds), kinds).norm(dim=-1, keepdim=True)
    assert parts.shape == (2, 5, 5, 6, 7)
    torch.testing.assert_close(units, alone)
    bias = model.image_projection[kind].bias @ directions.T
    torch.testing.assert_close(parts.sum((2, 3, 4)) + bias / length, alone @ directions.T, atol=1e-5, rtol=1e-4)
    assert parts.std() > 1e-4


def test_a_place_keeps_its_place_on_the_grid(model: RegionClip) -> None:
    """A change in one corner moves the contributions there most: D, H, W are not exchanged."""
    plain = torch.zeros(1, 2, 20, 24, 28)
    spotted = plain.clone()
    spotted[..., 16:20, 0:4, 20:24] = 1.0
    with torch.no_grad():
        tokens = [model.image(p)[0].unflatten(1, (5, 6, 7)) for p in (plain, spotted)]
    moved = (tokens[1] - tokens[0]).abs().sum(-1)[0]
    d, h, w = torch.unravel_index(moved.argmax(), moved.shape)
    assert int(d) >= 3 and int(h) <= 1 and 4 <= int(w) <= 6


def test_kinds_have_their_own_projection_and_queries(model: RegionClip) -> None:
    pixels = torch.rand(1, 2, 16, 20, 24).repeat(2, 1, 1, 1, 1)
    with torch.no_grad():
        mixed = model.embed_image(pixels, torch.tensor([1, 0]))
        kidney, chest = (model.embed_image(pixels[:1], torch.tensor([k]))[0] for k in (0, 1))
    torch.testing.assert_close(mixed[0], chest)
    torch.testing.assert_close(mixed[1], kidney)
    assert not torch.allclose(kidney, chest, atol=1e-3)


def test_padding_does_not_change_a_text(model: RegionClip) -> None:
    short, long = "No hydronephrosis.", "A mass of 42 mm in the left kidney. The right kidney measures 108 mm."
    with torch.no_grad():
        alone = model.embed_text(*model.tokenize([short]))
        ids, mask = model.tokenize([short, long])
        together = model.embed_text(ids, mask)
    assert int(mask[0].sum()) < ids.shape[1]
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))


def test_tokenizer_lowers_case_and_long_texts_are_cut(model: RegionClip) -> None:
    tokenizer = train_tokenizer(CORPUS, 100)
    assert tokenizer.encode("LEFT Kidney").ids == tokenizer.encode("left kidney").ids
    assert tokenizer.encode("left kidney").ids != tokenizer.encode("right kidney").ids
    assert tokenizer.encode("left kidney").tokens[0] == "[CLS]"
    ids, mask = model.tokenize(["left kidney " * 60])
    assert ids.shape == mask.shape == (1, 40)
