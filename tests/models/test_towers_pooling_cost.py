"""What reading the token with the highest number costs, on reports of phantoms with the labels that the extractor finds."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.write import report_of
from medvl.models.tokenizer import train_tokenizer
from medvl.models.towers import build_tower
from medvl.text.labels import extract
from medvl.text.report import parse_report

NAMES = ("renal_mass", "renal_cyst", "renal_stone", "hydronephrosis")
SHAPE = {"hidden_size": 48, "layers": 1, "heads": 4, "intermediate_size": 96, "max_length": 128}
N_TRAIN, STEPS, BATCH = 600, 150, 32


def corpus(n: int) -> tuple[list[str], Tensor]:
    """Texts of both kidneys of n phantoms and (2n, 4) labels, 1 present and 0 absent; unmentioned counts as absent."""
    texts, labels = [], []
    for number in range(n):
        report = parse_report(report_of(sample_patient(77, number)))
        found = extract(report)
        for region in ("kidney_left", "kidney_right"):
            texts.append(report.regions.get(region, ""))
            labels.append([float(found[region][name] == 1) for name in NAMES] if region in found else [0.0] * 4)
    return texts, torch.tensor(labels)


@pytest.mark.slow
def test_highest_id_reads_one_finding_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    texts, labels = corpus(450)
    tokenizer = train_tokenizer(texts, 800)
    scores = {}
    for pooling in ("mean", "cls", "highest_id"):
        torch.manual_seed(1)
        tower = build_tower("bert", options={**SHAPE, "pooling": pooling}, tokenizer=tokenizer).train()
        head, draw = nn.Linear(48, 4), torch.Generator().manual_seed(2)
        optimiser = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr=3e-3)
        for _ in range(STEPS):
            rows = torch.randint(N_TRAIN, (BATCH,), generator=draw)
            logits = head(tower(**tower.tokenize([texts[row] for row in rows])).pooled)
            loss = functional.binary_cross_entropy_with_logits(logits, labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            held = head(tower.embed(texts[N_TRAIN:], batch=64))
        scores[pooling] = float(roc_auc_score(labels[N_TRAIN:].numpy(), held.numpy(), average="macro"))
    with capsys.disabled():
        sys.stdout.write(f"macro AUROC by pooling: {json.dumps(scores)}\n")
    assert scores["mean"] > scores["highest_id"]
