"""Late interaction equals a loop over tokens, however it is cut, and holds no more than it may."""

from typing import Any

import numpy as np
import pytest
import torch
from scenes import SIZES, B, L, M, found, leaves, scene
from scipy.special import log_softmax
from torch.utils._python_dispatch import TorchDispatchMode

from medvl.objectives.late_interaction import late_interaction
from medvl.objectives.registry import build_objective

PLAIN = {"duplicates_as_positives": False}


def _loop(given: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    image, text = given["image_tokens"].double().numpy(), given["text_tokens"].double().numpy()
    n_words = given["text_mask"].sum(1).tolist()
    places, words = np.zeros((B, B)), np.zeros((B, B))
    for i in range(B):
        for j in range(B):
            cosines = [[float(image[i, k] @ text[j, w]) for w in range(n_words[j])] for k in range(L)]
            places[i, j] = np.mean([max(row) for row in cosines])
            words[i, j] = np.mean([max(column) for column in zip(*cosines, strict=True)])
    return places, words


@pytest.mark.parametrize("chunk", [1, 3 * L * B * M, 10**9])
def test_loss_equals_a_loop_over_tokens_in_chunks_of_any_size(chunk: int) -> None:
    given = found()
    assert len(set(given["text_mask"].sum(1).tolist())) > 2
    places, words = _loop(given)
    rows, columns = log_softmax(places / 0.07, axis=1), log_softmax(words / 0.07, axis=0)
    loss = build_objective("late_interaction", {**PLAIN, "chunk": chunk}, SIZES)(given, scene())
    assert loss.item() == pytest.approx(-(np.trace(rows) + np.trace(columns)) / (2 * B), rel=1e-5)


def test_gradients_do_not_depend_on_chunks_and_padding_has_none() -> None:
    gradients = []
    for chunk in (1, 10**9):
        given = leaves(found())
        build_objective("late_interaction", {"chunk": chunk}, SIZES)(given, scene()).backward()
        gradients.append(given)
    for name in ("image_tokens", "text_tokens"):
        assert torch.allclose(gradients[0][name].grad, gradients[1][name].grad, atol=1e-7)
    assert (gradients[0]["text_tokens"].grad[~gradients[0]["text_mask"]] == 0).all()


def test_a_text_without_tokens_is_finite() -> None:
    given = leaves(found())
    given["text_mask"][2] = False
    loss = build_objective("late_interaction", PLAIN, SIZES)(given, scene())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(given["text_tokens"].grad).all()


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor made inside had."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return out


@pytest.mark.parametrize("n_images", [1, 4])
def test_memory_is_bounded_forwards_and_backwards_and_nothing_of_that_size_is_kept(n_images: int) -> None:
    n, places, n_words, width = 24, 30, 20, 4
    draw = torch.Generator().manual_seed(0)
    image, text = torch.randn(n, places, width, generator=draw), torch.randn(n, n_words, width, generator=draw)
    image.requires_grad_()
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes() // value.itemsize
        return value

    limit, mask = n_images * places * n * n_words, torch.ones(n, n_words, dtype=torch.bool)
    with Largest() as seen, torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        rows, columns = late_interaction(image, text, mask, limit)
        during_forward = sum(kept.values())
        (rows.sum() + columns.sum()).backward()
    assert limit < n * places * n * n_words / 4
    assert seen.numbers == limit
    assert 0 < during_forward <= image.numel() + text.numel() + mask.numel() + 2 * n * n
