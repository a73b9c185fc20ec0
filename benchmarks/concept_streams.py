"""What each switch of the concept streams does, on tokens where the answer is known: `python benchmarks/concept_streams.py`.

Each of four findings, when present, adds its own pattern to one random token of a 3 x 4 x 5 grid of noise. One anatomy asks
whether the first finding lies in the first slice, which nothing but positions can tell.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import Tensor

from medvl.models.streams import ConceptStreams, StreamsConfig
from medvl.objectives.attributes import masked_cross_entropy

GRID, N_TOKENS, WIDTH, CONCEPT, N_FINDINGS, N_ANATOMIES = (3, 4, 5), 60, 32, 24, 4, 3
SETTINGS: dict[str, dict[str, object]] = {
    "as shipped": {},
    "gate: linear": {"gate": "linear"},
    "gate: none": {"gate": "none"},
    "no positions": {"positions": False},
    "no memory_norm": {"memory_norm": False},
    "initial: normal": {"initial": "normal"},
    "the release": {"gate": "linear", "positions": False, "memory_norm": False, "initial": "normal"},
}


def draw(n: int, patterns: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens (n, L, T), presence (n, F), first slice or not (n,) and -1 where there is nothing, and places (n, F)."""
    present = (torch.rand(n, N_FINDINGS, generator=generator) < 0.5).long()
    places = torch.randint(N_TOKENS, (n, N_FINDINGS), generator=generator)
    tokens = torch.randn(n, N_TOKENS, WIDTH, generator=generator) * 0.5
    tokens.scatter_add_(1, places[..., None].expand(-1, -1, WIDTH), present[..., None] * patterns)
    first = (places[:, 0] < N_TOKENS // GRID[0]).long()
    return tokens.relu(), present, torch.where(present[:, 0] == 1, first, -1), places


def trial(changes: dict[str, object], seed: int, steps: int) -> tuple[float, float, float]:
    """Accuracy of presence, accuracy of the slice, and share of present findings whose highest attention is in place."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 100)
    config = StreamsConfig.model_validate({"hidden": 48, "layers": 2, "feedforward": 64, "dropout": 0.0} | changes)
    model = ConceptStreams(config, WIDTH, CONCEPT, N_ANATOMIES, N_FINDINGS)
    banks = [torch.randn(n, CONCEPT, generator=generator) for n in (N_ANATOMIES, N_FINDINGS)]
    patterns = torch.randn(N_FINDINGS, WIDTH, generator=generator)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(steps):
        tokens, present, first, _ = draw(32, patterns, generator)
        found = model(tokens, GRID, *banks)
        loss = masked_cross_entropy(found["finding_logits"].flatten(0, 1), present.flatten())
        loss = loss + masked_cross_entropy(found["anatomy_logits"][:, 0], first)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        tokens, present, first, places = draw(400, patterns, generator)
        found = model(tokens, GRID, *banks, attention=True)
    known = first >= 0
    right = (found["finding_logits"].argmax(-1) == present).float().mean()
    where = (found["anatomy_logits"][known, 0].argmax(-1) == first[known]).float().mean()
    pointed = (found["finding_attention"].mean(1).argmax(-1) == places)[present == 1].float().mean()
    return float(right), float(where), float(pointed)


def main() -> None:
    """Print a Markdown table: mean over seeds, and the worst."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("| setting | finding present | in the first slice | attention in place |\n| --- | --- | --- | --- |")
    for name, changes in SETTINGS.items():
        trials = [trial(changes, seed, options.steps) for seed in range(options.seeds)]
        cells = [f"{statistics.mean(column):.2f} (worst {min(column):.2f})" for column in zip(*trials, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
