"""What the files and columns of a dataset folder are called."""

from __future__ import annotations

SCHEMA = "medvl.dataset/1"
DATASET = "dataset.json"
CASES = "cases.parquet"
REJECTS = "rejects.csv"
LEAKS = "leaks.csv"
VOLUMES = "volumes"
JOURNAL = "journal"
KEY = "key"
LABEL, SOURCE, CLINICAL = "label:", "source:", "clinical:"
SCANNER = ("manufacturer", "model", "kernel", "kvp", "slice_thickness_mm", "contrast")
