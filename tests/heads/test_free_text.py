"""A short text asks by its difference from its negation, and finds what it could not find alone."""

import torch
from torch import Tensor
from torch.nn import functional

from medvl.heads.free_text import query_of

ABOUT, SHOWN = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])


def embed(texts: list[str]) -> Tensor:
    """What a text is about weighs more than whether it holds, as in a trained tower."""
    signs = [-1.0 if "no " in f" {text.lower()}" or text.startswith("No") else 1.0 for text in texts]
    return functional.normalize(torch.stack([3 * ABOUT + sign * SHOWN for sign in signs]), dim=-1)


def test_the_negation_is_taken_off() -> None:
    with_it = functional.normalize(SHOWN + 0.5 * ABOUT, dim=0)
    without = functional.normalize(3 * ABOUT - 0.2 * SHOWN, dim=0)
    alone, twin = query_of("a cyst", embed, literal=True)
    assert not twin
    assert alone @ without > alone @ with_it
    query, twin = query_of("a cyst", embed)
    assert twin
    assert query @ with_it > query @ without
    denied, _ = query_of("no cyst", embed)
    torch.testing.assert_close(denied, -query)


def test_a_report_is_taken_as_it_stands() -> None:
    query, twin = query_of("The kidney holds a cyst. There is no mass.", embed)
    assert not twin
    torch.testing.assert_close(query, embed(["The kidney holds a cyst. There is no mass."])[0])
