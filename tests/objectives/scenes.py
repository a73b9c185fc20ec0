"""Batches of one kind with every representation and everything known of them, no two sizes alike."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medvl.data.targets import KindTargets, Targets
from medvl.objectives.registry import Scene, Sizes

B, P, E, T, L, M, S, V, F, A, H, C = 6, 8, 5, 7, 12, 9, 11, 10, 4, 13, 16, 14
KIDNEY = KindTargets(
    regions=("kidney_left", "kidney_right"),
    binary=("mass", "cyst", "stone"),
    classes={"pole": ("upper", "interpolar", "lower"), "grade": ("mild", "severe")},
    numbers={"size_mm": (40.0, 20.0)},
    marks=("mass", "stone"),
)
CHEST = KindTargets(regions=("chest",), binary=("effusion_left", "effusion_right"))
SIZES = Sizes(pooled=P, embed=E, token=T, text=E + 1, kinds={"kidney": KIDNEY, "chest": CHEST})


def targets(n: int, seed: int, kind: KindTargets = KIDNEY) -> Targets:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(n, len(kind.numbers))).astype(np.float32)
    numbers[rng.random(numbers.shape) < 0.3] = np.nan
    classes = [rng.integers(-1, len(values), n) for values in kind.classes.values()]
    return Targets(
        rng.choice([-1, 0, 1], (n, len(kind.binary))).astype(np.int8),
        np.stack(classes, 1).astype(np.int8) if classes else np.zeros((n, 0), np.int8),
        numbers,
    )


def scene(n: int = B, seed: int = 0) -> Scene:
    rng = np.random.default_rng(seed + 100)
    draw = torch.Generator().manual_seed(seed)
    return Scene(
        kind="kidney",
        index=0,
        targets=targets(n, seed),
        relations=torch.tensor(rng.choice([-1, 0, 1], (n, A, F), p=[0.4, 0.3, 0.3]), dtype=torch.int8),
        duplicates=torch.tensor(rng.integers(0, max(n - 2, 1), n)),
        statements=targets(S, seed + 1),
        marks=torch.randint(0, 4, (n, 2, 2, 3), generator=draw, dtype=torch.uint8),
        generator=torch.Generator().manual_seed(seed + 1),
        time_days=torch.tensor([300.0, 700.0, 300.0, torch.nan, 900.0, 700.0]).repeat(n)[:n],
        event=torch.tensor([True, True, False, False, False, True]).repeat(n)[:n],
        patients=torch.tensor([0, 1, 2, 3, 4, 1]).repeat(n)[:n],
        concepts={"findings": torch.randn(F, C, generator=draw), "anatomies": torch.randn(A, C, generator=draw)},
    )


SHARED = ("statements", "statement_states")  # of statements, not of samples


def found(n: int = B, seed: int = 0, size: float = 1.0) -> dict[str, Tensor]:
    """Representations; `size` multiplies those that are no unit vectors."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "pooled": (n, P),
        "tokens": (n, L, T),
        "text_states": (n, E + 1),
        "statement_states": (S, E + 1),
        "marks": (n, L, len(KIDNEY.marks)),
        "reconstruction": (n, M, V),
        "reconstruction_target": (n, M, V),
        "finding_logits": (n, F, 2),
        "anatomy_logits": (n, A, 2),
        "finding_states": (n, F, H),
        "anatomy_states": (n, A, H),
        "finding_prototype": (n, F, C),
        "anatomy_prototype": (n, A, C),
    }
    units = {"image": (n, E), "text": (n, E), "statements": (S, E), "image_tokens": (n, L, E), "text_tokens": (n, M, E)}
    out = {name: size * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    out |= {name: functional.normalize(torch.randn(shape, generator=draw), dim=-1) for name, shape in units.items()}
    lengths = torch.randint(1, M + 1, (n, 1), generator=draw)
    return out | {"text_mask": torch.arange(M)[None] < lengths}


def rows(what: Scene, order: Tensor) -> Scene:
    """The scene with its samples in another order, or some of them."""
    numbers = order.numpy()
    return replace(
        what,
        targets=what.targets[numbers],
        relations=None if what.relations is None else what.relations[order],
        duplicates=None if what.duplicates is None else what.duplicates[order],
        marks=None if what.marks is None else what.marks[order],
        time_days=None if what.time_days is None else what.time_days[order],
        event=None if what.event is None else what.event[order],
        patients=None if what.patients is None else what.patients[order],
    )


def leaves(values: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Copies that take gradients, except masks and what is to be reconstructed."""
    still = ("text_mask", "reconstruction_target")
    return {k: v.clone() if k in still else v.to(dtype).detach().requires_grad_() for k, v in values.items()}
