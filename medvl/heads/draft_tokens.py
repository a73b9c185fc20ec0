"""Image tokens of a cohort, read once by a frozen image tower and kept in half precision on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medvl.data.cohort import Cohort
from medvl.files import replace_text, whole
from medvl.imaging.preprocess import MIN_COVERED, Contract, window
from medvl.models.captioner import reduce_tokens
from medvl.models.clip import RegionClip


@dataclass(frozen=True, eq=False)
class TokenCache:
    """Every usable region of a cohort.

    Args:
        rows, columns: (N,) patient and region of each.
        tokens: (N, L, 2 T) float16, memory-mapped; pooled: (N, P) float32.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    tokens: NDArray[np.float16]
    pooled: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, L, 2 T) and pooled (B, P) float32, and region numbers (B,), of some rows."""
        tokens = torch.from_numpy(self.tokens[chosen].astype(np.float32))
        return tokens, torch.from_numpy(self.pooled[chosen]), torch.from_numpy(self.columns[chosen])


@contextmanager
def frozen(tower: nn.Module) -> Iterator[None]:
    """In evaluation mode and without gradients: nothing in the tower changes, running statistics included; then as before."""
    modes = {module: module.training for module in tower.modules()}
    tower.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def cache_tokens(
    clip: RegionClip,
    cohort: Cohort,
    contract: Contract,
    kinds: Mapping[str, tuple[str, ...]],
    folder: Path,
    *,
    grid: int,
    batch: int = 32,
) -> TokenCache:
    """Read the cohort's usable regions once, or open what an earlier call with the same tower, cohort and grid has left.

    Args:
        clip: whose image tower and pool are used, frozen.
        cohort: regions that are not complete enough are left out.
        contract: windows of each region.
        kinds: region names of each kind, in the tower's order.
        folder: where `tokens-<key>.npy` and its neighbours lie.
        grid: tokens a side after `reduce_tokens`.
        batch: regions read at a time.
    """
    rows, columns = np.nonzero(cohort.covered >= MIN_COVERED)
    key = _key(clip, cohort, rows, columns, contract, grid)
    paths = {name: folder / f"{name}-{key}.npy" for name in ("tokens", "pooled")}
    if not (folder / f"tokens-{key}.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with whole(paths["tokens"]) as tokens, whole(paths["pooled"]) as pooled:
            shape = _fill(clip, cohort, contract, kinds, (rows, columns), tokens, pooled, grid=grid, batch=batch)
        replace_text(folder / f"tokens-{key}.json", json.dumps({"grid": grid, "shape": shape}) + "\n")
    return TokenCache(rows, columns, np.load(paths["tokens"], mmap_mode="r"), np.load(paths["pooled"]))


def _fill(
    clip: RegionClip,
    cohort: Cohort,
    contract: Contract,
    kinds: Mapping[str, tuple[str, ...]],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    to_tokens: Path,
    to_pooled: Path,
    *,
    grid: int,
    batch: int,
) -> list[int]:
    rows, columns = places
    number = {name: k for k, names in enumerate(kinds.values()) for name in names}
    shape = (len(rows), grid**3, 2 * clip.image.token_dim)
    kept = np.lib.format.open_memmap(to_tokens, "w+", np.float16, shape)
    pooled = np.zeros((len(rows), clip.pool.width), np.float32)
    for start in range(0, len(rows), batch):
        part = slice(start, min(start + batch, len(rows)))
        pixels = [
            window(np.asarray(cohort.hu[r, c]), contract[cohort.regions[c]].windows_hu)
            for r, c in zip(rows[part], columns[part], strict=True)
        ]
        tags = torch.tensor([number[cohort.regions[c]] for c in columns[part]])
        kept[part], pooled[part] = read_regions(clip, torch.from_numpy(np.stack(pixels)), tags, grid)
    kept.flush()
    with to_pooled.open("wb") as file:
        np.save(file, pooled)
    return list(shape)


def read_regions(clip: RegionClip, pixels: Tensor, kind: Tensor, grid: int) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Reduced tokens (B, L, 2 T) and pooled features (B, P) of pixels (B, C, D, H, W) for kinds (B,), the tower left as it is."""
    device = next(clip.parameters()).device
    with frozen(clip), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        encoded = clip.image(pixels.to(device))
        tokens, pooled = reduce_tokens(encoded, grid), clip.pool(encoded, kind.to(device))
    return tokens.half().cpu().numpy(), pooled.float().cpu().numpy()


def _key(
    clip: RegionClip, cohort: Cohort, rows: NDArray[np.int64], columns: NDArray[np.int64], contract: Contract, grid: int
) -> str:
    """16 hex digits over the tower's weights, the patients, the regions and the contract."""
    digest = hashlib.sha256(json.dumps([contract.hash, grid, list(cohort.hu.shape), cohort.regions]).encode())
    for name, value in (*clip.image.state_dict().items(), *clip.pool.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().float().numpy().tobytes())
    digest.update("\n".join(str(case["patient_id"]) for case in cohort.cases).encode())
    digest.update(rows.tobytes() + columns.tobytes() + np.ascontiguousarray(cohort.hu[0, 0]).tobytes())
    return digest.hexdigest()[:16]
