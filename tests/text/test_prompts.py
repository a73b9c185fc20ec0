"""Findings lists: what is asked, how it is worded, and what is refused."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import medvl_configs
from medvl.errors import ConfigError
from medvl.text.prompts import Finding, load_findings

YAML = """
name: two
findings:
  - key: mass
    label: Mass
    region: kidney
    truth: renal_mass
    templates: ["{}.", "there is {} today."]
    present: ["a mass in the {side} kidney", "a tumour"]
    absent: ["no mass"]
  - key: large
    label: Large
    region: kidney
    truth: mass_large
    given: mass
    phases: [arterial]
    present: ["the {side} mass is large."]
    absent: ["the {side} mass is small."]
"""


def _without(key: str) -> str:
    values = yaml.safe_load(YAML)
    del values["findings"][0][key]
    return yaml.safe_dump(values)


def test_every_template_meets_every_descriptor_on_its_side() -> None:
    mass = load_findings(YAML)["mass"]
    present, absent = mass.prompts("kidney_left")
    assert present == [
        "A mass in the left kidney.",
        "A tumour.",
        "There is a mass in the left kidney today.",
        "There is a tumour today.",
    ]
    assert absent == ["No mass.", "There is no mass today."]
    assert [p.replace("right", "left") for p in mass.prompts("kidney_right")[0]] == present
    assert "right" in mass.prompts("kidney_right")[0][0]


def test_descriptors_without_templates_are_sentences() -> None:
    assert load_findings(YAML)["large"].prompts("kidney_right") == (["The right mass is large."], ["The right mass is small."])


def test_file_text_and_plain_values_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text(YAML, encoding="utf-8")
    assert load_findings(path) == load_findings(YAML) == load_findings(yaml.safe_load(YAML))
    assert [f.given for f in load_findings(path).findings] == [None, "mass"]


@pytest.mark.parametrize("key", ["key", "label", "region", "truth", "present", "absent"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"findings\.0\.{key}"):
        load_findings(_without(key))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (YAML.replace("truth: renal_mass", "truth: renal_mass\n    colour: red"), "colour"),
        (YAML + "\nother: 1\n", "other"),
        (YAML.replace("key: large", "key: mass").replace("given: mass", "given: null"), "two findings are called mass"),
        (YAML.replace("given: mass", "given: tumour"), "large is given tumour, which is no finding of the list two"),
        (YAML.replace("present: [", "present: [[", 1), "not usable"),
        ("- just\n- a list\n", "not usable"),
        ("", "not usable"),
        (YAML.replace('absent: ["no mass"]', "absent: no mass"), r"findings\.0\.absent"),
    ],
)
def test_bad_lists_are_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_findings(text)


def test_unknown_finding_names_the_nearest() -> None:
    found = load_findings(YAML)
    with pytest.raises(ConfigError, match=r"no finding masss in the list two; did you mean mass\?"):
        found["masss"]
    with pytest.raises(ConfigError, match="known: large, mass"):
        found["xyz"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff\xfe\x00")])
def test_a_list_that_cannot_be_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match="findings list"):
        load_findings(tmp_path / "list.yaml")


def _bundled() -> list[Finding]:
    return list(load_findings(Path(str(medvl_configs.__path__[0])) / "findings" / "phantom.yaml").findings)


@pytest.mark.parametrize("finding", _bundled(), ids=lambda f: f.key)
def test_bundled_prompts_are_sentences_that_differ_by_side_and_answer(finding: Finding) -> None:
    sided = finding.region == "kidney"
    regions = ("kidney_left", "kidney_right") if sided else (finding.region,)
    for region in regions:
        present, absent = finding.prompts(region)
        for text in (*present, *absent):
            assert text[0].isupper()
            assert text.endswith(".")
            assert not set("{}") & set(text)
            assert ".." not in text
        assert not set(present) & set(absent)
        assert len(set(present)) == len(present) > 2
    if sided:
        assert set(finding.prompts("kidney_left")[0]) != set(finding.prompts("kidney_right")[0])
        assert not any("right" in text for text in (*finding.prompts("kidney_left")[0], *finding.prompts("kidney_left")[1]))


def test_only_the_findings_of_some_kinds() -> None:
    listed = load_findings(YAML)
    regions = sorted({f.region for f in listed.findings})
    one = listed.only([regions[0], "elsewhere"])
    assert {f.region for f in one.findings} == {regions[0]}
    assert listed.only(regions) is listed
    with pytest.raises(ConfigError, match="asks nothing of liver"):
        listed.only(["liver"])


def test_codes_change_the_lists_hash_only_where_there_are_any() -> None:
    """A sealed list keeps its hash: that of every field that it could have before there were codes."""
    plain = load_findings(YAML)
    values = plain.model_dump(mode="json")
    for finding in values["findings"]:
        assert [finding.pop(name) for name in ("code", "site", "side")] == [None] * 3
    assert plain.sha256 == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    coded = yaml.safe_load(YAML)
    coded["findings"][0]["code"] = {"scheme": "SCT", "value": "309088003", "meaning": "Renal mass"}
    assert load_findings(coded).sha256 != plain.sha256


@pytest.mark.parametrize("wrong", [{"value": "a" * 17}, {"meaning": "a\\b"}, {"scheme": ""}, {"more": "x"}])
def test_codes_that_dicom_cannot_write_are_refused(wrong: dict[str, str]) -> None:
    coded = yaml.safe_load(YAML)
    coded["findings"][0]["code"] = {"scheme": "SCT", "value": "309088003", "meaning": "Renal mass", **wrong}
    with pytest.raises(ConfigError, match="code"):
        load_findings(coded)
