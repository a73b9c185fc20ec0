"""Flat JSON objects with fixed keys in a fixed order, and which strings begin one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medvl.errors import ConfigError

_NUMBER = re.compile(r"(?:0|[1-9]\d{0,2})(?:\.\d)?")
_NUMBER_BEGINS = re.compile(r"(?:0|[1-9]\d{0,2})(?:\.\d?)?")
State = frozenset[tuple[int, str]]


@dataclass(frozen=True)
class Field:
    """One key and what it may hold.

    Args:
        key: its name.
        values: words; none for a number below 1000 with at most one decimal, or null.
    """

    key: str
    values: tuple[str, ...] = ()


class FlatSchema:
    """The documents ``{"key": value, ...}`` of some fields, in their order, written in the one way `json.dumps` writes them.

    A state is what is open after some text: (field number, text of that field so far) for each way to read it.

    Raises:
        ConfigError: no field, two fields of one name, or a value that stands twice.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        keys = [f.key for f in self.fields]
        if not keys or len(set(keys)) < len(keys) or any(len(set(f.values)) < len(f.values) for f in self.fields):
            raise ConfigError(f"a schema needs fields with names and values of their own, not {keys}")
        self._leads = [("{" if i == 0 else ", ") + json.dumps(f.key) + ": " for i, f in enumerate(self.fields)]
        self.start: State = frozenset({(0, "")})

    @property
    def alphabet(self) -> set[str]:
        """Every character that a document may hold."""
        words = [json.dumps(v) for f in self.fields for v in f.values]
        return set("".join([*self._leads, *words, "}null.0123456789"]))

    @property
    def longest(self) -> int:
        """Characters of the longest document."""
        return 1 + sum(
            len(lead) + max([5, *(len(json.dumps(v)) for v in f.values)])
            for lead, f in zip(self._leads, self.fields, strict=True)
        )

    def advance(self, state: State, character: str) -> State:
        """The state one character on; empty where no document goes on like this."""
        after = set()
        for index, text in state:
            if self._begins(index, text + character):
                after.add((index, text + character))
            if self._ends(index, text) and self._begins(index + 1, character):
                after.add((index + 1, character))
        return frozenset(after)

    def is_complete(self, state: State) -> bool:
        """Whether the text so far is a whole document."""
        return (len(self.fields), "}") in state

    def accepts(self, text: str) -> bool:
        """Whether a text is a document of the schema."""
        state = self.start
        for character in text:
            state = self.advance(state, character)
        return self.is_complete(state)

    def _begins(self, index: int, text: str) -> bool:
        if index == len(self.fields):
            return text == "}"
        lead, values = self._leads[index], self.fields[index].values
        if len(text) <= len(lead):
            return lead.startswith(text)
        rest = text[len(lead) :] if text.startswith(lead) else ""
        if not rest:
            return False
        if values:
            return any(json.dumps(v).startswith(rest) for v in values)
        return "null".startswith(rest) or bool(_NUMBER_BEGINS.fullmatch(rest))

    def _ends(self, index: int, text: str) -> bool:
        if index == len(self.fields):
            return False
        lead, values = self._leads[index], self.fields[index].values
        rest = text[len(lead) :] if text.startswith(lead) else ""
        return rest in map(json.dumps, values) if values else rest == "null" or bool(_NUMBER.fullmatch(rest))


def document(schema: FlatSchema, values: Mapping[str, str | float | None]) -> str:
    """A document of a schema from its values.

    Raises:
        ConfigError: the values do not fit the schema.
    """
    text = json.dumps({f.key: values.get(f.key) for f in schema.fields})
    if not schema.accepts(text):
        raise ConfigError(f"{text} is no document of the schema with fields {[f.key for f in schema.fields]}")
    return text
