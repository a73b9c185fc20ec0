"""SimpleITK as the judge of where voxels lie: built from the affine alone, sharing no code with medvl."""

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its own documentation uses)

NEAREST = sitk.sitkNearestNeighbor


def _parts(affine_lps):
    """Origin, spacing and direction in ITK's (column, row, slice) order."""
    columns = np.asarray(affine_lps)[:3, [2, 1, 0]]
    spacing = np.linalg.norm(columns, axis=0)
    return np.asarray(affine_lps)[:3, 3].tolist(), spacing.tolist(), (columns / spacing).ravel().tolist()


def image(array, affine_lps):
    """A SimpleITK float image of a (D, H, W) array."""
    made = sitk.GetImageFromArray(np.asarray(array, dtype=np.float32))
    origin, spacing, direction = _parts(affine_lps)
    made.SetOrigin(origin)
    made.SetSpacing(spacing)
    made.SetDirection(direction)
    return made


def resampled(array, affine_lps, target_shape, target_affine, *, fill=-1024.0, interpolator=sitk.sitkLinear, sigmas_mm=None):
    """(D, H, W) float32 on the target; `sigmas_mm` along (D, H, W) blurs the source first."""
    source = image(array, affine_lps)
    if sigmas_mm is not None:
        for axis, sigma in enumerate(reversed(sigmas_mm)):
            if sigma > 0:
                source = sitk.RecursiveGaussian(source, float(sigma), False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    origin, spacing, direction = _parts(target_affine)
    size = [int(n) for n in target_shape[::-1]]
    out = sitk.Resample(source, size, sitk.Transform(), interpolator, origin, spacing, direction, fill, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(out)
