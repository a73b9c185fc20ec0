"""Similar cases, drafts and free prompts: what is shown of whom, and every refusal."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from evidence_studies import CASE, CONTRACT, OTHER, SHA, WIDTH, PretendBundle, pane, readings, said, unit, write_full
from results_folder import finding, study_json, write_study
from safetensors.numpy import save_file
from tiny import Tiny

from medvl.data.identity import folder_key, patient_id
from medvl.data.person import person_of
from medvl.models.bundle import open_bundle
from medvl.retrieval.entry import Entry, Space
from medvl.retrieval.store import Index
from medvl.review.record import Person
from medvl_ui.extras import extras, options, parsed
from medvl_ui.likeness import likeness
from medvl_ui.reviews import reviews
from medvl_ui.station import open_station
from medvl_ui.study import Study


def near(seed: int, by: float) -> np.ndarray:
    """A unit vector near that of the study's left kidney."""
    made = unit(1) + by * unit(seed)
    return (made / np.linalg.norm(made)).astype(np.float32)


def write_index(folder: Path, *, sha: str = SHA, outcomes: bool = True, links: Mapping[int, str] = MappingProxyType({})) -> Path:
    """Twelve left kidneys; P0 is the study's own patient, with the same vector and a right kidney beside."""
    rows = [unit(1), *(near(10 + k, 0.2 * k) for k in range(1, 12))]
    cases = [
        Entry(f"P{k}/kidney_left", f"P{k}", region="kidney_left", report=f"Report {k}.", findings={"renal_mass": int(k % 2 == 0)},
              extra=({"time_days": 365.25 * k, "event": float(k % 2)} if outcomes else {})
              | ({"person": links[k]} if links.get(k) else {}))
        for k in range(12)
    ]  # fmt: skip
    vectors = np.stack(rows)
    space = Space("phantom", sha, CONTRACT, WIDTH)
    with Index.create(folder, space) as index:
        index.add(cases, {"image": vectors, "report": vectors}, space)
    return folder


def test_nearest_cases_without_the_same_patient_with_their_outcomes(tmp_path: Path, monkeypatch) -> None:
    write_full(tmp_path / "results")
    index = write_index(tmp_path / "index")
    at = pane(readings(tmp_path / "results", monkeypatch, index=index), "Similar")
    told = said(at)
    assert "11 cases compared" in told
    assert "cases of other patients" not in told
    assert "One patient with the same images was left out." in told
    score = float(near(11, 0.2) @ unit(1))
    assert f"**{score:.3f}**  P1" in told
    assert "P0" not in told
    assert "Event after 1.0 years" in told
    assert "Kaplan-Meier with 95 % interval" in told
    assert "Report 1." not in told
    assert "Reports are withheld" in told
    at.button(key="same_P1/kidney_left").click().run()
    assert "10 cases compared" in said(at)
    assert "  P1" not in said(at)


def test_reports_are_shown_to_reviewers_where_the_viewer_may(tmp_path: Path, monkeypatch) -> None:
    write_full(tmp_path / "results")
    index = write_index(tmp_path / "index", outcomes=False)
    told = said(pane(readings(tmp_path / "results", monkeypatch, index=index, show_text=True), "Similar"))
    assert "Report 1." in told
    assert "carries no outcomes" in told
    told = said(pane(readings(tmp_path / "results", monkeypatch, index=index, show_text=True, reviews=lambda: False), "Similar"))
    assert "Report 1." not in told


def test_an_index_of_another_model_is_refused_and_none_is_said(tmp_path: Path, monkeypatch) -> None:
    write_full(tmp_path / "results")
    index = write_index(tmp_path / "index", sha="ab" * 32)
    told = said(pane(readings(tmp_path / "results", monkeypatch, index=index), "Similar"))
    assert "the index holds model_sha256 abababababab" in told
    write_full(tmp_path / "bare", vectors=False)
    assert "hold no embeddings" in said(pane(readings(tmp_path / "bare", monkeypatch, index=index), "Similar"))


def test_studies_of_this_folder_can_be_laid_beside(tmp_path: Path, monkeypatch) -> None:
    write_full(tmp_path)
    assert "No other study of this folder" in said(pane(readings(tmp_path, monkeypatch), "Similar"))
    folder = write_study(tmp_path, study_json(OTHER, findings=[finding("renal_mass", "kidney_left", 0.9, "present")]))
    meta = {"model_sha256": SHA, "contract_hash": CONTRACT}
    save_file({"kidney_left": near(12, 0.4)}, folder / "embeddings.safetensors", metadata=meta)
    copy = write_study(tmp_path, study_json("e3copy"))
    save_file({"kidney_left": unit(1)}, copy / "embeddings.safetensors", metadata=meta)
    at = pane(readings(tmp_path, monkeypatch), "Similar")
    assert "1 study compared. 1 with the same images left out." in said(at)
    at.button(key=f"beside_{OTHER}").click().run()
    assert at.session_state["beside"] == (CASE, OTHER, "kidney_left")


def test_studies_of_the_same_patient_are_left_out_by_the_keyed_number(tmp_path: Path, monkeypatch) -> None:
    write_full(tmp_path, series={"key": "k", "modality": "CT", "patient": "0123456789ab"})
    meta = {"model_sha256": SHA, "contract_hash": CONTRACT}
    for name, patient in (("f1before", "0123456789ab"), ("f2stranger", "ba9876543210")):
        folder = write_study(tmp_path, study_json(name, series={"key": "k", "modality": "CT", "patient": patient}))
        vectors = {"kidney_left": near(12, 0.4), "kidney_right": unit(7)}
        save_file(vectors, folder / "embeddings.safetensors", metadata=meta)
    told = said(pane(readings(tmp_path, monkeypatch), "Similar"))
    assert "1 study compared. 1 of the same patient left out." in told
    assert "f2stranger" in told
    assert "f1before" not in told
    left, right = float(near(12, 0.4) @ unit(1)), float(unit(7) @ unit(2))
    assert f"Whole case {(left + right) / 2:.3f} = left kidney {left / 2:+.3f}, right kidney {right / 2:+.3f}" in told


SITE, ELSEWHERE = b"s" * 32, b"e" * 32
CANNOT = "Which of these cases are of this patient cannot be told: "


def similar_told(root: Path, monkeypatch, numbers: dict[int, str], person: str | None, patient: str | None = None) -> str:
    """What the pane says of a study whose result keeps a link, with links at some patients of the index."""
    write_full(root / "results", series={"key": "k", "modality": "CT", "patient": patient, "person": person})
    return said(pane(readings(root / "results", monkeypatch, index=write_index(root / "index", links=numbers)), "Similar"))


def test_the_index_leaves_out_the_patient_with_the_link_of_the_result(tmp_path: Path, monkeypatch) -> None:
    links = {k: person_of(SITE, f"H{k}") for k in range(12)}
    told = similar_told(tmp_path, monkeypatch, links, person_of(SITE, " H2 "))
    assert "10 cases of patients with other numbers compared" in told
    assert "This patient's other cases were left out, by the patient number." in told
    assert "  P2" not in told
    assert "  P1" in told
    assert CANNOT not in told


LINKED = {k: person_of(SITE, f"H{k}") for k in range(12)}
HERE, MADE = "12 of 12 patients of the index", "were ingested or embedded"


@pytest.mark.parametrize(
    ("links", "person", "why"),
    [
        ({}, person_of(SITE, "H2"), f"{HERE} {MADE} without a patient key"),
        (LINKED, None, "this result was made without a patient key"),
        (LINKED, person_of(SITE, ""), "the images of this study tell no patient number"),
        (LINKED, person_of(ELSEWHERE, "H2"), f"{HERE} {MADE} with another patient key than this result's"),
        (
            {**LINKED, 3: person_of(SITE, "ANONYMOUS"), 4: ""},
            person_of(SITE, "H2"),
            f"1 of 12 patients of the index {MADE} without a patient key; 1 of 12 patients of the index came without a patient",
        ),
    ],
)
def test_what_cannot_be_told_is_said(tmp_path: Path, monkeypatch, links: dict[int, str], person: str | None, why: str) -> None:
    told = similar_told(tmp_path, monkeypatch, links, person)
    assert f"{CANNOT}{why}" in told
    assert "cases of other patients" not in told
    assert "other numbers" not in told
    assert ("  P2" in told) == ("1 of 12" not in why)


def test_an_older_index_with_open_names_is_still_searched_for_the_patient(tmp_path: Path, monkeypatch) -> None:
    key = folder_key(tmp_path / "results" / "key")
    told = similar_told(tmp_path, monkeypatch, {}, None, patient_id(key, "P2"))
    assert "10 cases compared" in told
    assert "This patient's other cases were left out, by the patient number." in told
    assert "  P2" not in told
    assert CANNOT in told


def test_likeness_compares_decided_findings_only() -> None:
    rows = [("a", "present"), ("b", "present"), ("c", "absent"), ("d", "absent"), ("e", "undecided"), ("f", "present")]
    study = Study.model_validate(study_json(CASE, findings=[finding(n, "chest", 0.5, verdict) for n, verdict in rows]))
    said_there = {"a": 1, "b": 0, "c": 1, "d": 0, "e": 1}
    assert likeness(study, "chest", said_there) == ["In both: A", "Only here: B", "Only there: C", "Absent in both: 1"]
    assert likeness(study, "chest", {}) == ["Nothing is said there of the findings that are decided here."]


@pytest.mark.parametrize("name", ["Draft", "Prompts"])
def test_panes_that_need_the_bundle_say_so(tmp_path: Path, monkeypatch, name: str) -> None:
    write_full(tmp_path)
    assert "--bundle NAME" in said(pane(readings(tmp_path, monkeypatch), name))
    told = said(pane(readings(tmp_path, monkeypatch, bundle=PretendBundle("ab" * 32)), name))
    assert "another bundle" in told or "was made by bundle" in told


def test_a_draft_links_sentences_to_findings_and_keeps_edits(tmp_path: Path, monkeypatch, tiny_run: Tiny) -> None:
    bundle = open_bundle(tiny_run.bundle)
    rows = [
        finding("renal_cyst", "kidney_left", 0.97, "present"),
        finding("renal_stone", "kidney_left", 0.02, "absent"),
        finding("of_a_users_list", "kidney_left", None, "undecided"),
    ]
    made = {"name": bundle.name, "sha256": bundle.sha256, "contract": bundle.contract.hash}
    write_full(tmp_path, findings=rows, bundle=made)
    at = pane(readings(tmp_path, monkeypatch, bundle=bundle), "Draft")
    told = said(at)
    assert "Draft, not final." in told
    assert "cyst in the left kidney" in told
    at.button(key="draft_0").click().run()
    assert at.session_state["finding"] == "renal_cyst@kidney_left"
    assert "cyst" in at.text_area[0].value
    proposed = at.text_area[0].value
    at.text_area[0].set_value("My own words.").run()
    assert "Version 1, saved by Anna Roth" in said(at)
    kept = reviews(tmp_path).review(CASE).text
    assert (kept.text, kept.proposed, kept.changed) == ("My own words.", proposed, True)
    other = pane(readings(tmp_path, monkeypatch, bundle=bundle), "Draft")  # a session of its own
    assert other.text_area[0].value == "My own words."
    assert "Draft, not final." in said(other)


def write_draftable(root: Path) -> None:
    write_full(root)
    open_station(root)


def test_two_who_write_at_once_see_both_texts_and_lose_none(tmp_path: Path, monkeypatch) -> None:
    write_draftable(tmp_path)
    at = pane(readings(tmp_path, monkeypatch), "Draft")
    assert "--bundle NAME" in said(at)  # without the software's words a person can write all the same
    desk = reviews(tmp_path)
    results = desk.review(CASE).answers.sha256
    desk.save_text(CASE, "Theirs.", Person("Bert", "reviewer"), expected_version=0, results=results)
    at.text_area[0].set_value("Mine.").run()
    told = said(at)
    assert "**Bert** was faster" in told
    assert "Theirs." in told
    assert at.text_area[0].value == "Mine."
    assert desk.review(CASE).text.text == "Theirs."
    at.button(key=f"signoff_{CASE}_mine").click().run()
    assert desk.review(CASE).text.text == "Mine."
    assert desk.review(CASE).text.version == 2
    at.button(key=f"signoff_{CASE}_drop").click().run()
    assert desk.review(CASE).text is None
    assert [row["what"] for row in desk.history(CASE)] == ["report text saved"] * 2 + ["report text taken back"]


def test_readers_see_the_text_and_cannot_write(tmp_path: Path, monkeypatch) -> None:
    write_draftable(tmp_path)
    desk = reviews(tmp_path)
    results = desk.review(CASE).answers.sha256
    desk.save_text(CASE, "Theirs.", Person("Bert", "reviewer"), expected_version=0, results=results)
    at = readings(tmp_path, monkeypatch)
    at.session_state["role"] = "reader"
    at = pane(at, "Draft")
    assert (at.text_area[0].value, at.text_area[0].disabled) == ("Theirs.", True)


def test_a_free_prompt_gives_the_models_margin_and_no_verdict(tmp_path: Path, monkeypatch, tiny_run: Tiny) -> None:
    from medvl.heads.free_text import query_of

    bundle = open_bundle(tiny_run.bundle)
    write_full(tmp_path, bundle={"name": bundle.name, "sha256": bundle.sha256, "contract": bundle.contract.hash}, vectors=False)
    vector = np.eye(1, 16, dtype=np.float32)[0]
    meta = {"model_sha256": bundle.sha256, "contract_hash": bundle.contract.hash}
    save_file({"kidney_left": vector}, tmp_path / "studies" / CASE / "embeddings.safetensors", metadata=meta)
    at = pane(readings(tmp_path, monkeypatch, bundle=bundle), "Prompts")
    assert "uncalibrated" in said(at)
    at.text_input(key="lab_text").set_value("a stone in the left kidney")
    at.button[-1].click().run()
    query, twin = query_of("a stone in the left kidney", extras().predictor.embed_texts)
    assert twin
    assert at.metric[0].value == f"{float(query[0]):+.3f}"
    assert "against its negation, made from your words" in said(at)
    assert at.text_input(key="lab_text").max_chars == 200
    assert at.run().metric[0].value == f"{float(query[0]):+.3f}"  # whatever else the reader does, the answer stays


def test_options_reach_the_serving_process(tmp_path: Path) -> None:
    given = parsed(["--other", "x", *options(tmp_path / "i", tmp_path / "b", show_text=True)])
    assert (given.index, given.bundle, given.show_text) == ((tmp_path / "i").resolve(), (tmp_path / "b").resolve(), True)
    assert options(None, None, show_text=False) == []


def test_the_audit_key_and_the_ledger_reach_it_and_no_password_stands_in_its_arguments(tmp_path: Path, monkeypatch) -> None:
    arguments = options(None, None, show_text=False, audit_key=tmp_path / "key")
    monkeypatch.setenv("MEDVL_LEDGER", "postgresql://reader:secret@db/medvl")
    given = parsed(arguments)
    assert given.audit_key == (tmp_path / "key").resolve()
    assert given.ledger == "postgresql://reader:secret@db/medvl"
    assert "secret" not in repr(given) + " ".join(arguments)


def test_the_audit_key_may_lie_elsewhere(tmp_path: Path, monkeypatch) -> None:
    write_full(tmp_path / "results")
    said(readings(tmp_path / "results", monkeypatch, audit_key=tmp_path / "safe" / "key"))
    desk = reviews(tmp_path / "results")
    desk.log(Person("Anna Roth", "reviewer"), "view opened", CASE)
    assert (tmp_path / "safe" / "key").is_file()
    assert not (tmp_path / "results" / "reviews.key").exists()
    assert desk.verify().problems == ()
