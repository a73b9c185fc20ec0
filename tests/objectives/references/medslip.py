"""MeDSLIP's three losses in plain loops, written from its equations."""

import math

import numpy as np
from references.renalclip import log_softmax


def existence(finding_logits, anatomy_logits, relations):
    """Cross-entropy over mentioned findings plus the same over mentioned anatomies."""
    n_samples, n_anatomies, n_findings = relations.shape
    total = 0.0
    for logits, count, slices in (
        (finding_logits, n_findings, lambda b, q: relations[b, :, q]),
        (anatomy_logits, n_anatomies, lambda b, q: relations[b, q, :]),
    ):
        terms = []
        for b in range(n_samples):
            for q in range(count):
                seen = list(slices(b, q))
                label = 1 if 1 in seen else 0 if 0 in seen else -1
                if label >= 0:
                    terms.append(-log_softmax(list(map(float, logits[b, q])))[label])
        total += sum(terms) / len(terms)
    return total


def prototype_terms(queries, bank, relations, negatives_of, measure):
    """Terms of one stream; `relations` (B, N, Q), `negatives_of(b, q)` numbers of concepts, `measure` of two vectors."""
    terms = []
    for b in range(len(relations)):
        for q in range(relations.shape[2]):
            own = [n for n in range(relations.shape[1]) if relations[b, n, q] == 1]
            others = negatives_of(b, q)
            if own and others:
                prototype = np.mean([bank[n] for n in own], axis=0)
                row = [measure(queries[b, q], prototype), *(measure(queries[b, q], bank[n]) for n in others)]
                terms.append(-log_softmax(row)[0])
    return terms


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def cosine_over(temperature):
    return lambda a, b: dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) / temperature


def link_prediction(anatomy_states, finding_states, relations, divisor=1.0):
    """Mean binary cross-entropy of dot products over what is mentioned."""
    terms = []
    for b, a, f in np.ndindex(*relations.shape):
        if relations[b, a, f] >= 0:
            z = dot(anatomy_states[b, a], finding_states[b, f]) / divisor
            sign = 1 if relations[b, a, f] == 1 else -1
            terms.append(max(-sign * z, 0.0) + math.log1p(math.exp(-abs(z))))
    return sum(terms) / len(terms)
