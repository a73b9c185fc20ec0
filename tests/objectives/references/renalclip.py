"""RenalCLIP's losses in plain loops, from the published equations; run as a script it prints the shares in the tests."""

import math

import numpy as np


def log_softmax(row):
    largest = max(row)
    total = math.log(sum(math.exp(v - largest) for v in row)) + largest
    return [v - total for v in row]


def attribute_classification(logits, labels):
    """Sum over attributes of mean cross-entropy; logits[k][i] is a list of class logits, labels[i][k] is -1 where unknown."""
    total = 0.0
    for k, of_attribute in enumerate(logits):
        terms = [-log_softmax(row)[labels[i][k]] for i, row in enumerate(of_attribute) if labels[i][k] != -1]
        total += sum(terms) / len(terms) if terms else 0.0
    return total


def contrastive(image, text, multiplier):
    """(CE(S, I) + CE(S^t, I)) / 2."""
    n = len(image)
    table = [[multiplier * float(np.dot(image[i], text[j])) for j in range(n)] for i in range(n)]
    rows = -sum(log_softmax(table[i])[i] for i in range(n)) / n
    columns = -sum(log_softmax([table[i][j] for i in range(n)])[j] for j in range(n)) / n
    return (rows + columns) / 2


def minority_share(counts, by_draw, by_weight):
    """Share of the expected loss weight that the first class has, when all samples are equally hard."""
    draw = [1.0 if by_draw else float(n) for n in counts]
    weight = [1.0 / n if by_weight else 1.0 for n in counts]
    each = [d * w for d, w in zip(draw, weight, strict=True)]
    return each[0] / sum(each)


def weighted_per_sample(logits, labels, weights):
    """Weighted cross-entropy over the number of samples."""
    return sum(-weights[y] * log_softmax(row)[y] for row, y in zip(logits, labels, strict=True)) / len(labels)


if __name__ == "__main__":
    for name, switches in {"none": (0, 0), "loss": (0, 1), "sampler": (1, 0), "double_balancing": (1, 1)}.items():
        print(f"{name:18} {minority_share((80, 320), *switches):.3f}")  # noqa: T201
