"""Labels by a language model that runs on this machine: a prompt from the ontology, an answer that cannot leave its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList

from medvl.errors import ConfigError
from medvl.text.clauses import allowed_at, binary_attributes, home
from medvl.text.extractors.base import Extracted, provenance, region_text, settled
from medvl.text.extractors.constrain import SchemaProcessor, TokenTree
from medvl.text.extractors.schema import Field, FlatSchema
from medvl.text.labels import Value, extract_text
from medvl.text.ontology import Ontology, built_in
from medvl.text.relations import STATUS, Edge, RelationGraph
from medvl.text.report import StructuredReport
from medvl.text.scope import UNMENTIONED

STATED = ("unmentioned", "absent", "uncertain", "present")
NOT_STATED = "not stated"
UNKNOWN_SENTENCE = -1


def schema_of(ontology: Ontology) -> FlatSchema:
    """What is asked of one region: status and place of each finding, status of each trait, grades, classes and lengths in mm."""
    fields = []
    large = ontology.attributes.get("large", {}).get("key")
    for name, _, _ in binary_attributes(ontology):
        if name != large:
            fields.append(Field(name, STATED))
            places = allowed_at(name, ontology)
            fields += [Field(f"{name}.place", places)] if len(places) > 1 else []
    for rules in ontology.findings.values():
        fields += [Field(rules["grade"], (NOT_STATED, *rules["grades"]))] if "grade" in rules else []
        fields += [Field(rules["size"])] if "size" in rules else []
    fields += [Field(key, (NOT_STATED, *options)) for key, options in ontology.attributes.get("choice", {}).items()]
    return FlatSchema([*fields, *(Field(key) for key in ontology.measures)])


def prompt_of(text: str, region: str, ontology: Ontology) -> str:
    """The question: what each key means, then the report's words on the region."""
    lines = [f"Read what a radiology report says of the region {region.replace('_', ' ')} and answer in JSON.", "Keys:"]
    meanings = {name: str(r.get("definition", "")).replace("{side}", side) for name, side, r in binary_attributes(ontology)}
    meanings |= {key: entry["definition"] for key, entry in ontology.dictionary.items()}
    for field in schema_of(ontology).fields:
        may = " | ".join(field.values) if field.values else "a length in mm, or null when it is not stated"
        lines.append(" ".join(f"- {field.key} ({may}): {meanings.get(field.key, '')}".split()))
    return "\n".join(
        [*lines, "Say unmentioned or not stated for what the words leave open.", f"Words: {text or 'none'}", "JSON:"]
    )


class LlmExtractor:
    """Reads reports with a causal language model; nothing leaves the machine.

    Args:
        model, tokenizer: of the transformers library, loaded; the model's place and number type are kept.
        ontologies: what to ask for; by default the built-in ones.
        version: what to call the model in the provenance.
    """

    name = "llm"

    def __init__(
        self, model: Any, tokenizer: Any, ontologies: Sequence[Ontology] | None = None, version: str = "unnamed"
    ) -> None:
        self.model, self.tokenizer, self.version = model.eval(), tokenizer, version
        self.ontologies = tuple(built_in() if ontologies is None else ontologies)
        self._tree = TokenTree(tokenizer)

    @classmethod
    def load(
        cls, place: str, ontologies: Sequence[Ontology] | None = None, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> LlmExtractor:
        """From a folder, or a hub name that is already or may be downloaded; safetensors only, no code from the repository.

        Raises:
            ConfigError: no model can be loaded from there.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(place)
            model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=dtype or "auto", use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"no causal language model could be loaded from {Path(place).name}: {error}") from error
        return cls(model.to(device), tokenizer, ontologies, Path(place).name)

    def __call__(self, report: StructuredReport) -> Extracted:
        """Labels and relations, one question a region.

        Raises:
            ConfigError: question and answer are longer than the model's context.
        """
        labels, graphs = {}, {}
        for ontology in self.ontologies:
            for region in ontology.regions:
                answer = self._ask(prompt_of(region_text(report, region), region, ontology), schema_of(ontology))
                labels[region], graphs[region] = understood(answer, ontology)
        return Extracted(labels, graphs, provenance(self, self.ontologies))

    @torch.inference_mode()
    def _ask(self, question: str, schema: FlatSchema) -> dict[str, str | float | None]:
        """The most likely document, token by token."""
        tokens = self._tokens(question)
        length, room = tokens["input_ids"].shape[1], getattr(self.model.config, "max_position_embeddings", None)
        if room is not None and length + schema.longest + 1 > room:
            raise ConfigError(
                f"question ({length} tokens) and answer (up to {schema.longest + 1}) do not fit the model's context of {room}; "
                "use a model with a longer one"
            )
        end = self.tokenizer.eos_token_id
        if end is None:
            raise ConfigError("the tokenizer has no end token; set its eos_token")
        written = self.model.generate(
            **tokens,
            logits_processor=LogitsProcessorList([SchemaProcessor(schema, self._tree, length, end)]),
            max_new_tokens=schema.longest + 1,
            do_sample=False,
            num_beams=1,
            eos_token_id=end,
            pad_token_id=end,
        )
        text = "".join(self._tree.texts.get(token, "") for token in written[0, length:].tolist())
        answer: dict[str, str | float | None] = json.loads(text)
        return answer

    def _tokens(self, question: str) -> Mapping[str, torch.Tensor]:
        if self.tokenizer.chat_template:
            turn = [{"role": "user", "content": question}]
            question = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        tokens = self.tokenizer(question, return_tensors="pt", add_special_tokens=not self.tokenizer.chat_template)
        return {key: tokens[key].to(self.model.device) for key in ("input_ids", "attention_mask")}


def understood(answer: Mapping[str, str | float | None], ontology: Ontology) -> tuple[dict[str, Value], RelationGraph]:
    """Labels and edges from an answer of `schema_of`; which sentence says so is not known, and -1."""
    edges, values = [], {}
    blank = extract_text("", ontology)
    for name, _, rules in binary_attributes(ontology):
        status = answer.get(name)
        if status in STATED[1:]:
            trait = name in ontology.attributes.get("flags", {})
            owner = ontology.attributes["of"] if trait else name
            place = str(answer.get(f"{owner}.place", home(owner, ontology)))
            size = answer.get(rules.get("size", ""))
            length = float(size) if size is not None and status != "absent" else None
            edges.append(Edge(place, name, status, UNKNOWN_SENTENCE, length))  # type: ignore[arg-type]
    for key in blank:
        value = answer.get(key)
        if isinstance(value, int | float):
            values[key] = float(value)
        elif blank[key] is None and isinstance(value, str) and value != NOT_STATED:
            values[key] = value  # type: ignore[assignment]
    labels = settled(edges, values, ontology)
    stated = [e for e in edges if labels[e.finding] != UNMENTIONED]
    large = ontology.attributes.get("large")
    if large and labels[large["key"]] != UNMENTIONED:
        place = next(
            (e.anatomy for e in stated if e.finding == ontology.attributes["of"]), home(ontology.attributes["of"], ontology)
        )
        size = float(str(labels[large["size"]]))
        stated.append(Edge(place, large["key"], STATUS[int(str(labels[large["key"]]))], UNKNOWN_SENTENCE, size))
    return labels, RelationGraph(tuple(stated), ontology.name)
