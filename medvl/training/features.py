"""Features of whole cohorts, computed once: of images, of texts, of a frozen text tower's versions of each report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medvl.models.clip import RegionClip
from medvl.models.system import System
from medvl.models.text_cache import embed_cached
from medvl.recipe import StageConfig
from medvl.training.batches import to_pixels
from medvl.training.samples import KindData, arranged


@torch.no_grad()
def represented(system: System, part: KindData, needs: frozenset[str], batch: int = 64) -> dict[str, Tensor]:
    """Image representations by name, (N, ...) float32 of every row's crop, in evaluation mode."""
    system.eval()
    device = next(system.parameters()).device
    out: dict[str, list[Tensor]] = {}
    for start in range(0, len(part), batch):
        rows = np.arange(start, min(start + batch, len(part)))
        inputs = {
            "pixels": to_pixels(part.crops(rows), part.windows_hu).to(device),
            "kind": torch.full((len(rows),), part.index, device=device),
        }
        with torch.autocast(device.type, torch.bfloat16):
            for name, value in system.represent(inputs, needs).items():
                if name in needs:
                    out.setdefault(name, []).append(value.float().cpu())
    return {name: torch.cat(parts) for name, parts in out.items()}


@torch.no_grad()
def pooled_features(clip: RegionClip, part: KindData, batch: int = 64) -> Tensor:
    """(N, P) float32 pooled features of every row's crop, in evaluation mode."""
    clip.eval()
    device = next(clip.parameters()).device
    out = []
    for start in range(0, len(part), batch):
        rows = np.arange(start, min(start + batch, len(part)))
        with torch.autocast(device.type, torch.bfloat16):
            pixels = to_pixels(part.crops(rows), part.windows_hu).to(device)
            out.append(clip.pooled(pixels, torch.full((len(rows),), part.index, device=device)).float().cpu())
    return torch.cat(out)


@torch.no_grad()
def embed_texts(clip: RegionClip, texts: list[str], batch: int = 128) -> Tensor:
    """(N, E) unit embeddings of texts, in evaluation mode."""
    clip.eval()
    device = next(clip.parameters()).device
    out = []
    for start in range(0, len(texts), batch):
        ids, mask = clip.tokenize(texts[start : start + batch])
        out.append(clip.embed_text(ids.to(device), mask.to(device)).cpu())
    return torch.cat(out)


def text_versions(part: KindData, stage: StageConfig, seed: int) -> list[list[str]]:
    """Each row's report as the stage reads it, as it stands and in `text_versions` - 1 other orders of its sentences."""
    rng = np.random.default_rng([seed, 23, part.index])
    said = part.sentences(visible_only=stage.visible_only, strip_numbers=stage.strip_numbers, report_text=stage.report_text)
    return [[" ".join(parts), *(arranged(parts, rng) for _ in range(stage.text_versions - 1))] for parts in said]


def text_states(clip: RegionClip, texts: list[str], folder: Path) -> Tensor:
    """(N, H) pooled states of texts from the text tower as it is, kept under `folder` by hashes."""
    clip.eval()
    return embed_cached(clip.text, texts, folder, 256)
