"""Which cases to search: `region=kidney_left age>=60 finding:renal_mass`, evaluated on columns before any vector is read."""

from __future__ import annotations

import operator
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError, did_you_mean

ALIASES = {"age": "age_years", "patient_id": "patient"}
STATES = {"finding": 1, "absent": 0, "unstated": -1}
VOCABULARY = {
    "phase": ("noncontrast", "arterial", "portal_venous", "delayed"),
    "side": ("left", "right"),
    "sex": ("F", "M", "O"),
    "split": ("train", "validation", "test"),
}
NEAREST_OF = 10_000  # values that are compared with a misspelt one; beyond that it would take seconds
ORDERS: dict[str, Callable[[Any, Any], Any]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
WORD = re.compile(r"(?P<name>\w+)(?P<op><=|>=|!=|=|<|>|:)(?P<value>.+)", re.DOTALL)


class Table(Protocol):
    """What a filter reads: columns of all rows of an index, dead ones included."""

    def text(self, name: str) -> tuple[NDArray[np.int32], list[str]]:
        """(N,) number of each row's value, -1 for none; and the values."""

    def number(self, name: str) -> NDArray[np.float64]:
        """(N,) NaN for none."""

    def finding(self, key: str) -> NDArray[np.int8]:
        """(N,) 1, 0, or -1 where not stated."""

    def kind_of(self, name: str) -> str:
        """`text` or `number`; an error names the nearest column."""


@dataclass(frozen=True)
class Condition:
    """One condition: all of a filter's must hold.

    Args:
        name: of a column, or of the finding; op: `=`, `!=`, `<`, `<=`, `>`, `>=`, or a state of a finding.
        values: one, or several for "any of these" after `=` and "none of these" after `!=`.
        typed: by a person, so that a text value that occurs nowhere is an error; a program may ask for what may be missing.
    """

    name: str
    op: str
    values: tuple[str, ...] = ()
    typed: bool = False

    def rows(self, table: Table) -> NDArray[np.bool_]:
        """(N,) where it holds. A case of which the column is not known passes no condition on it, `!=` included.

        Raises:
            ConfigError: no such column or finding, a number is needed, or no case has a value that was `typed`.
        """
        if self.op in STATES:
            return np.asarray(table.finding(self.name) == STATES[self.op])
        if table.kind_of(self.name) == "number":
            return self._number(table.number(self.name))
        if self.op in ORDERS:
            raise ConfigError(f"{self.name}{self.op}{self.values[0]}: {self.name} is text, which = and != compare")
        numbers, known = table.text(self.name)
        self.must_occur(known)
        among = np.isin(numbers, [i for i, value in enumerate(known) if value in self.values])
        return np.asarray(among if self.op == "=" else ~among & (numbers >= 0))

    def must_occur(self, known: Sequence[str]) -> None:
        """Nothing where every value is among those that occur, or belongs to the vocabulary of its column.

        Raises:
            ConfigError: a value that a person typed is neither.
        """
        for value in self.values if self.typed else ():
            if value not in known and value not in VOCABULARY.get(self.name, ()):
                raise ConfigError(f"no case of the index has {self.name} {value}; {_nearest(value, known)}")

    def _number(self, column: NDArray[np.float64]) -> NDArray[np.bool_]:
        try:
            wanted = [float(value) for value in self.values]
        except ValueError as error:
            raise ConfigError(f"{self.name}{self.op}{','.join(self.values)}: {self.name} is a number") from error
        if self.op in ORDERS:
            return np.asarray(ORDERS[self.op](column, wanted[0]))
        among = np.isin(column, wanted)
        return np.asarray(among if self.op == "=" else ~among & np.isfinite(column))


def parse_filter(text: str) -> tuple[Condition, ...]:
    """Conditions separated by spaces; a value with spaces is quoted; several values are separated by commas.

    Raises:
        ConfigError: a word is no condition.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"filter {text!r}: {error}") from error
    return tuple(_condition(word) for word in words)


def _condition(word: str) -> Condition:
    found = WORD.fullmatch(word)
    if not found:
        raise ConfigError(
            f"{word!r} is no condition; write region=kidney_left, phase=arterial,portal_venous, age>=60 or finding:renal_mass"
        )
    name, op, value = found["name"], found["op"], found["value"]
    if op == ":":
        if name not in STATES:
            raise ConfigError(f"{word!r}: a finding is {', '.join(f'{s}:KEY' for s in STATES)}; {did_you_mean(name, STATES)}")
        return Condition(value, name)
    values = (value,) if op in ORDERS else tuple(value.split(","))
    return Condition(ALIASES.get(name, name), op, values, typed=True)


def _nearest(value: str, known: Sequence[str]) -> str:
    """The hint about a value that does not occur: the nearest that does, else all if they are few."""
    hint = did_you_mean(value, known) if 0 < len(known) <= NEAREST_OF else ""
    if hint.startswith("did you mean") or 0 < len(known) <= 12:
        return hint
    return f"{len(known)} other values occur"
