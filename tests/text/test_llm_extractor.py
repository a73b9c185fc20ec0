"""A language model's answer is a document of the schema whatever its weights say, and a document reads back to labels."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from medvl.data.cohort import describe
from medvl.errors import ConfigError
from medvl.text.extractors.constrain import SchemaProcessor, TokenTree
from medvl.text.extractors.llm import LlmExtractor, prompt_of, schema_of, understood
from medvl.text.extractors.schema import Field, FlatSchema, document
from medvl.text.ontology import Ontology, built_in, load_ontology
from medvl.text.relations import concepts, existence, relation_matrix
from medvl.text.report import parse_report

KIDNEY, HEART = built_in()
SMALL = FlatSchema([Field("a", ("yes", "yes and no", "no")), Field("b_mm"), Field("c", ('quo"ted', "x"))])
STONES = {
    "name": "stones",
    "regions": ["kidney_left"],
    "findings": {"stone": {"terms": ["stones?"], "size": "stone_mm", "grade": "g", "grades": {"few": ["few"], "many": ["many"]}}},
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the spot: all single bytes, and some longer pieces of JSON."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator([prompt_of("A stone of 12 mm.", "kidney_left", KIDNEY), '{"a": "yes", "b_mm": 1.5}, null'], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>")


def tiny(seed: int, scale: float = 1.0, room: int = 4096) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=420, max_position_embeddings=room, bos_token_id=None, eos_token_id=0, **sizes)
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale)
    return model


def fits(answer: dict[str, Any], schema: FlatSchema) -> bool:
    """Keys in order, words from their lists, numbers from 0 to below 1000 or null."""
    good = [answer[f.key] in f.values if f.values else answer[f.key] is None or 0 <= answer[f.key] < 1000 for f in schema.fields]
    return list(answer) == [f.key for f in schema.fields] and all(good)


def beginnings(text: str) -> bool:
    state = SMALL.start
    return all(state := SMALL.advance(state, c) for c in text)


VALUES = st.fixed_dictionaries(
    {
        "a": st.sampled_from(["yes", "yes and no", "no"]),
        "b_mm": st.none() | st.integers(0, 999) | st.integers(0, 9999).map(lambda n: n / 10),
        "c": st.sampled_from(['quo"ted', "x"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.text("{}\"': ,.019abcyesno", max_size=2), st.integers(0, 60))
def test_exactly_the_documents_are_accepted(values: dict[str, Any], noise: str, at: int) -> None:
    text = json.dumps({key: values[key] for key in ("a", "b_mm", "c")})
    assert SMALL.accepts(text)
    assert len(text) <= SMALL.longest
    assert all(beginnings(text[:n]) for n in range(len(text)))
    spoilt = text[:at] + noise + text[at:]
    if SMALL.accepts(spoilt):
        assert fits(json.loads(spoilt), SMALL)
        assert json.dumps(json.loads(spoilt)) == spoilt


@pytest.mark.parametrize(
    "text", ["", "{}", '{"a": "yes"}', '{"a": "maybe", "b_mm": 1, "c": "x"}', '{"a": "no", "b_mm": 01, "c": "x"}']
)
def test_other_texts_are_not(text: str) -> None:
    assert not SMALL.accepts(text)


@pytest.mark.parametrize(("seed", "scale"), [(0, 1.0), (1, 1.0), (2, 30.0), (3, 0.0), (4, float("nan"))])
def test_whatever_the_weights_the_answer_is_a_document(seed: int, scale: float, tokenizer: PreTrainedTokenizerFast) -> None:
    ontology = load_ontology(STONES)
    reader = LlmExtractor(tiny(seed, scale), tokenizer, [ontology])
    answer = reader._ask(prompt_of("A stone.", "kidney_left", ontology), schema_of(ontology))
    assert fits(answer, schema_of(ontology))
    got = reader(parse_report("Stone in the left kidney."))
    assert set(got.labels["kidney_left"]) == {"stone", "stone_mm", "g"}
    assert (got.provenance.extractor, got.provenance.ontologies) == ("llm", {"stones": ontology.digest})


def test_a_sampled_answer_is_a_document_too(tokenizer: PreTrainedTokenizerFast) -> None:
    """Logits are noise here; every row of a batch must end as a document."""
    generator = torch.Generator().manual_seed(0)
    processor = SchemaProcessor(SMALL, TokenTree(tokenizer), 0, 0)
    ids = torch.zeros((6, 0), dtype=torch.long)
    for _ in range(SMALL.longest + 1):
        scores = processor(ids, torch.randn((6, 420), generator=generator) * 5)
        ids = torch.cat([ids, torch.distributions.Categorical(logits=scores).sample()[:, None]], 1)
    for row in ids.tolist():
        text = tokenizer.decode([t for t in row if t != 0])
        assert SMALL.accepts(text), text
        assert fits(json.loads(text), SMALL)


def test_the_model_decides_within_the_schema(tokenizer: PreTrainedTokenizerFast) -> None:
    """Logits that want one document get it, by its own tokens or by others that spell it."""
    wanted = document(SMALL, {"a": "yes and no", "b_mm": 12.5, "c": "x"})
    processor = SchemaProcessor(SMALL, TokenTree(tokenizer), 0, 0)
    ids = torch.zeros((1, 0), dtype=torch.long)
    for token in [*tokenizer(wanted)["input_ids"], 0]:
        scores = torch.zeros((1, 420))
        scores[0, token] = 5.0
        ids = torch.cat([ids, processor(ids, scores).argmax(-1)[:, None]], 1)
    assert tokenizer.decode(ids[0, :-1]) == wanted
    assert ids[0, -1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("ontology", [KIDNEY, HEART], ids=lambda o: o.name)
def test_the_built_in_ontologies_are_asked_in_full(ontology: Ontology, tokenizer: PreTrainedTokenizerFast) -> None:
    reader = LlmExtractor(tiny(0, room=16384), tokenizer, [ontology])
    got = reader(parse_report(describe(1, 0)["report"]))
    for region in ontology.regions:
        existence(relation_matrix(got.relations[region], concepts([ontology])))
        assert set(got.labels[region]) == set(describe(1, 0)["labels"][region])


def test_the_prompt_explains_every_key() -> None:
    prompt = prompt_of("A mass.", "kidney_left", KIDNEY)
    for field in schema_of(KIDNEY).fields:
        assert re.search(rf"^- {re.escape(field.key)} \(", prompt, re.MULTILINE)
    assert "kidney left" in prompt
    assert prompt.endswith("Words: A mass.\nJSON:")


def test_an_answer_becomes_labels_and_edges() -> None:
    answer = {f.key: (f.values[0] if f.values else None) for f in schema_of(KIDNEY).fields}
    answer |= {"renal_mass": "present", "renal_mass.place": "upper_pole", "mass_size_mm": 52, "mass_necrosis": "uncertain"}
    answer |= {"renal_stone": "absent", "stone_size_mm": 4, "mass_face": "posterior", "hydronephrosis_grade": "mild"}
    labels, graph = understood(answer, KIDNEY)
    stated = {k: v for k, v in labels.items() if v not in (-1, None)}
    assert stated == {
        "renal_mass": 1,
        "mass_size_mm": 52.0,
        "mass_large": 1,
        "mass_necrosis": 2,
        "mass_face": "posterior",
        "renal_stone": 0,
    }
    edges = {(e.finding, e.anatomy, e.status, e.size_mm, e.sentence) for e in graph.edges}
    assert edges == {
        ("renal_mass", "upper_pole", "present", 52.0, -1),
        ("mass_large", "upper_pole", "present", 52.0, -1),
        ("mass_necrosis", "upper_pole", "uncertain", None, -1),
        ("renal_stone", "collecting_system", "absent", None, -1),
    }


def test_traits_of_no_mass_are_dropped() -> None:
    answer = {f.key: (f.values[0] if f.values else None) for f in schema_of(KIDNEY).fields}
    labels, graph = understood(answer | {"mass_necrosis": "present", "mass_face": "anterior"}, KIDNEY)
    assert {k: v for k, v in labels.items() if v not in (-1, None)} == {}
    assert graph.edges == ()


def test_what_cannot_work_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not fit the model's context of 64"):
        LlmExtractor(tiny(0, room=64), tokenizer)(parse_report("A stone."))
    with pytest.raises(ConfigError, match="no causal language model"):
        LlmExtractor.load(str(tmp_path))
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"x": 0, "u": 1}, unk_token="u")), eos_token="u")
    with pytest.raises(ConfigError, match="no token for"):
        SchemaProcessor(SMALL, TokenTree(words), 0, 0)
    with pytest.raises(ConfigError, match="names and values of their own"):
        FlatSchema([Field("a"), Field("a")])
    with pytest.raises(ConfigError, match="no document"):
        document(SMALL, {"a": "never"})


def test_a_saved_model_is_loaded_from_its_folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tiny(0).save_pretrained(tmp_path / "own-model")
    tokenizer.save_pretrained(tmp_path / "own-model")
    reader = LlmExtractor.load(str(tmp_path / "own-model"), [load_ontology(STONES)])
    assert reader.version == "own-model"
    assert reader(parse_report("Left stone.")) == LlmExtractor(tiny(0), tokenizer, [load_ontology(STONES)], "own-model")(
        parse_report("Left stone.")
    )
