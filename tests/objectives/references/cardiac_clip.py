"""Cardiac-CLIP's contrastive loss in plain loops, written from its equations, transposed targets and raw scale included."""

import math

import numpy as np
from references.renalclip import log_softmax


def row_softmax_targets(vectors):
    """S_ij = exp(C_ij) / sum_k exp(C_ik) of cosines C of pathology vectors."""
    n = len(vectors)
    length = [math.sqrt(sum(float(v) ** 2 for v in row)) for row in vectors]
    cosine = [[float(np.dot(vectors[i], vectors[j])) / (length[i] * length[j]) for j in range(n)] for i in range(n)]
    return [[math.exp(c) / sum(math.exp(other) for other in row) for c in row] for row in cosine]


def contrastive(image, text, vectors, multiplier):
    """Mean of both directions; the second uses the first's targets transposed, so that its targets do not sum to 1."""
    n = len(image)
    targets = row_softmax_targets(vectors)
    table = [[multiplier * float(np.dot(image[i], text[j])) for j in range(n)] for i in range(n)]
    image_to_text = -sum(targets[i][j] * log_softmax(table[i])[j] for i in range(n) for j in range(n)) / n
    text_to_image = -sum(targets[i][j] * log_softmax([table[k][j] for k in range(n)])[i] for i in range(n) for j in range(n)) / n
    return (image_to_text + text_to_image) / 2


def reconstruction(found, target, mask):
    """Mean squared error of each patch, summed over hidden patches and divided by their number."""
    errors, hidden = 0.0, 0
    for b in range(len(found)):
        for patch in range(len(found[b])):
            if mask[b][patch]:
                errors += sum((float(x) - float(y)) ** 2 for x, y in zip(found[b][patch], target[b][patch], strict=True)) / len(
                    found[b][patch]
                )
                hidden += 1
    return errors / hidden
