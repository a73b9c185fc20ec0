"""Score the rule labeller of chest reports against manual labels, beside two keyword baselines.

    python benchmarks/report_labels.py DATA --markdown report-labels.md --json report-labels.json

DATA holds chest_ct_18labels/train.csv (reports with 18 manual 0/1 labels) and chest_ct_structured/reports.jsonl (findings with
presence, place and size extracted by hand). Rules were tuned on the half of the reports whose text has an even SHA-256, so that
equal texts stay on one side; what is printed is for the other half unless --half says otherwise.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report_labels_structured import score_structured, structured_table

from medvl.evaluation.intervals import bootstrap
from medvl.text.labels import extract_text
from medvl.text.ontology import Ontology, load_ontology, phrases
from medvl.text.report import split_sentences
from medvl.text.scope import ABSENT, PRESENT, UNCERTAIN, UNMENTIONED
from medvl.text.visible import visible_sentences

Row = Mapping[str, str]
Labels = Mapping[str, Any]
STATES = {PRESENT: "present", UNCERTAIN: "uncertain", ABSENT: "absent", UNMENTIONED: "unmentioned"}
_NEGEX = re.compile(r"\b(?:no|without|denies|not|absence of|negative for|free of|rules? out)\b(?:\W+\w+){0,5}\W*$", re.IGNORECASE)
_NEGEX_AFTER = re.compile(
    r"^(?:\W+\w+){0,5}\W+(?:unlikely|free|absent|ruled out|not (?:seen|present|identified))\b", re.IGNORECASE
)


def half_of(text: str) -> str:
    """``tuning`` or ``held-out``, by the text alone."""
    return "held-out" if int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2 else "tuning"


def rules(text: str, ontology: Ontology) -> Labels:
    return extract_text(text, ontology)


def filtered_rules(text: str, ontology: Ontology) -> Labels:
    return extract_text(" ".join(visible_sentences(split_sentences(text)).kept), ontology)


def names(text: str, ontology: Ontology) -> Labels:
    """Present when the published name of the finding is in the text."""
    return {key: PRESENT if f["label"].lower() in text.lower() else UNMENTIONED for key, f in ontology.findings.items()}


def keywords(text: str, ontology: Ontology) -> Labels:
    """Present when any of our terms is in the text, whatever is said of it."""
    return {key: PRESENT if phrases(tuple(f["terms"])).search(text) else UNMENTIONED for key, f in ontology.findings.items()}


def negex(text: str, ontology: Ontology) -> Labels:
    """Our terms with a NegEx-like rule: a cue at most five words before or behind a term in its sentence negates it."""
    out = dict.fromkeys(ontology.findings, UNMENTIONED)
    for sentence in split_sentences(text):
        for key, finding in ontology.findings.items():
            for m in phrases(tuple(finding["terms"])).finditer(sentence):
                negated = _NEGEX.search(sentence[: m.start()]) or _NEGEX_AFTER.search(sentence[m.end() :])
                out[key] = max(out[key], ABSENT if negated else PRESENT)
    return out


METHODS: dict[str, Callable[[str, Ontology], Labels]] = {
    "the finding's name": names,
    "our terms": keywords,
    "our terms, NegEx-like": negex,
    "rules after the visible filter": filtered_rules,
    "rules": rules,
}


class Scores:
    """Predictions of one method beside the manual labels: (reports, findings) bool arrays."""

    def __init__(self, truth: NDArray[np.bool_], said: NDArray[np.bool_], groups: Sequence[str]) -> None:
        self.groups = list(groups)
        self.hit, self.extra, self.miss = truth & said, ~truth & said, truth & ~said

    def counts(self, k: int) -> tuple[int, int, int]:
        return int(self.hit[:, k].sum()), int(self.extra[:, k].sum()), int(self.miss[:, k].sum())

    def f1(self, rows: NDArray[np.int64], columns: Sequence[int]) -> float:
        """Mean F1 over columns.

        Raises:
            ValueError: a finding that is neither labelled nor found.
        """
        tp, fp, fn = (m[np.ix_(rows, np.asarray(columns))].sum(0) for m in (self.hit, self.extra, self.miss))
        if (tp + fp + fn == 0).any():
            raise ValueError("a finding is neither labelled nor found")
        return float(np.mean(2 * tp / (2 * tp + fp + fn)))

    def interval(self, columns: Sequence[int]) -> tuple[float, float, float]:
        """(F1, low, high), 95 % by bootstrap over reports, equal texts together."""
        low, high = bootstrap(lambda rows: self.f1(rows, columns), self.groups)
        return self.f1(np.arange(len(self.groups)), columns), low, high


def score(said: Sequence[Labels], rows: Sequence[Row], ontology: Ontology) -> Scores:
    truth = np.array([[float(r[f["label"]]) > 0 for f in ontology.findings.values()] for r in rows])
    found = np.array([[s[key] in (PRESENT, UNCERTAIN) for key in ontology.findings] for s in said])
    return Scores(truth, found, [r["report_text"] for r in rows])


def error_class(key: str, text: str, wanted: bool, ontology: Ontology) -> str:
    """Why the rules are wrong on one report, by a rule of its own."""
    one = Ontology(ontology.name, ontology.regions, {key: ontology.findings[key]}, {}, {}, ())
    sentences = split_sentences(text)
    states = {s: extract_text(s, one)[key] for s in sentences}
    if wanted:
        named = [s for s in sentences if phrases(tuple(ontology.findings[key]["terms"])).search(s)]
        if not named:
            return "label without any of our words (synonym missing, or label from elsewhere)"
        return (
            "named, read as absent"
            if any(states[s] == ABSENT for s in named)
            else "named, in another place or in wording that is left out"
        )
    stated = [s for s, state in states.items() if state in (PRESENT, UNCERTAIN)]
    if stated and all(states[s] == UNCERTAIN for s in stated):
        return "stated with doubt only"
    if stated and all(re.search(r"\b(?:previous|prior|earlier|old|compared)\b", s, re.IGNORECASE) for s in stated):
        return "sentence on an earlier examination"
    if len(stated) > 1 or not stated:
        return "plainly stated, more than once or over sentences (label convention or noise)"
    return "plainly stated once (label convention or noise)"


def evaluate(rows: Sequence[Row], ontology: Ontology) -> dict[str, Any]:
    """Everything that is reported on a set of rows."""
    said = {name: [method(r["report_text"], ontology) for r in rows] for name, method in METHODS.items()}
    scores = {name: score(s, rows, ontology) for name, s in said.items()}
    every = range(len(ontology.findings))
    out: dict[str, Any] = {"reports": len(rows), "macro": {name: s.interval(every) for name, s in scores.items()}}
    out["findings"] = {}
    for k, (key, finding) in enumerate(ontology.findings.items()):
        tp, fp, fn = scores["rules"].counts(k)
        states = Counter((int(float(r[finding["label"]])), STATES[s[key]]) for r, s in zip(rows, said["rules"], strict=True))
        out["findings"][finding["label"]] = {
            "tp": tp,
            "fp": fp,
            "fn": fn,
            "precision": tp / max(tp + fp, 1),
            "recall": tp / max(tp + fn, 1),
            "f1": scores["rules"].interval([k]),
            "others": {name: scores[name].f1(np.arange(len(rows)), [k]) for name in list(METHODS)[:3]},
            "states": {f"{truth} {state}": states[truth, state] for truth in (1, 0) for state in STATES.values()},
        }
    classes: Counter[tuple[str, str]] = Counter()
    for row, labels in zip(rows, said["rules"], strict=True):
        for key, finding in ontology.findings.items():
            wanted, got = float(row[finding["label"]]) > 0, labels[key] in (PRESENT, UNCERTAIN)
            if wanted != got:
                kind = "missed" if wanted else "extra"
                classes[kind, error_class(key, row["report_text"], wanted, ontology)] += 1
    out["errors"] = [[kind, name, n] for (kind, name), n in classes.most_common()]
    return out


def visible_effect(rows: Sequence[Row], ontology: Ontology) -> dict[str, Any]:
    """What the filter of invisible sentences drops, and which labels it changes."""
    dropped: Counter[str] = Counter()
    sentences = changed = lost = 0
    for row in rows:
        split = split_sentences(row["report_text"])
        seen = visible_sentences(split)
        sentences += len(split)
        dropped.update(reason for _, reason in seen.dropped)
        before, after = extract_text(" ".join(split), ontology), extract_text(" ".join(seen.kept), ontology)
        changed += sum(before[k] != after[k] for k in before)
        lost += sum(before[k] == PRESENT != after[k] for k in before)
    labels = len(rows) * len(ontology.findings)
    return {"sentences": sentences, "dropped": dict(dropped), "labels": labels, "changed": changed, "present_lost": lost}


def markdown(result: Mapping[str, Any]) -> str:
    """The tables of the documentation."""
    lines = [
        "| finding | labelled | precision | recall | F1 (95 % CI) | name | terms | NegEx-like |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label, f in result["findings"].items():
        others = " | ".join(f"{f['others'][name]:.2f}" for name in list(METHODS)[:3])
        interval = "{:.3f} ({:.2f} to {:.2f})".format(*f["f1"])
        lines.append(f"| {label} | {f['tp'] + f['fn']} | {f['precision']:.3f} | {f['recall']:.3f} | {interval} | {others} |")
    lines += ["", "| method | macro F1 (95 % CI) |", "|---|---|"]
    lines += ["| {} | {:.3f} ({:.3f} to {:.3f}) |".format(name, *values) for name, values in result["macro"].items()]
    heads = [f"{truth} {state}" for truth in (1, 0) for state in STATES.values()]
    lines += ["", "| finding | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| {label} | " + " | ".join(str(f["states"][h]) for h in heads) + " |" for label, f in result["findings"].items()]
    lines += ["", "| error | class | n |", "|---|---|---|"]
    return "\n".join(lines + [f"| {kind} | {name} | {n} |" for kind, name, n in result["errors"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with chest_ct_18labels and chest_ct_structured")
    parser.add_argument("--half", choices=("held-out", "tuning"), default="held-out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    ontology = load_ontology("chest")
    with (given.data / "chest_ct_18labels" / "train.csv").open(encoding="utf-8", newline="") as file:
        every = list(csv.DictReader(file))
    start = time.process_time()
    for row in every:
        extract_text(row["report_text"], ontology)
    seconds = time.process_time() - start
    rows = [row for row in every if half_of(row["report_text"]) == given.half]
    result = {
        "half": given.half,
        "cpu_seconds_800": seconds,
        **evaluate(rows, ontology),
        "visible": visible_effect(rows, ontology),
    }
    result["structured"] = score_structured(given.data / "chest_ct_structured" / "reports.jsonl", ontology)
    text = markdown(result) + "\n\n" + structured_table(result["structured"])
    print(text, {k: result[k] for k in ("half", "reports", "cpu_seconds_800", "visible", "structured")}, sep="\n\n")
    if given.markdown:
        given.markdown.write_text(text + "\n", encoding="utf-8")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
