"""Masked image modelling: hidden patches of a region told from the rest of it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from medvl.objectives.registry import Objective, Scene


def masked_patch_error(found: Tensor, target: Tensor) -> Tensor:
    """() squared error of hidden patches (B, M, V): mean over V voxels, then over M patches and B samples."""
    return (found.float() - target.detach().float()).square().mean(-1).mean()


class MaskedImageModeling(Objective):
    """Squared error of reconstructed hidden patches.

    Source: He et al. 2021 (masked autoencoders), as in Cardiac-CLIP stage 1: sum(mask * err) / sum(mask) with err the mean over a
    patch. Whether targets are normalised patch by patch is the model's choice, in what it offers as the target.
    """

    needs = ("reconstruction", "reconstruction_target")

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from the hidden patches (B, M, V) and what they were."""
        return masked_patch_error(found["reconstruction"], found["reconstruction_target"])
