"""Values out of DICOM JSON (PS3.18 annex F) as servers really send it: with elements missing, empty or malformed."""

from __future__ import annotations

from typing import Any

Item = dict[str, Any]


def values(item: Item, tag: str) -> list[Any]:
    """The values of an element, empty when absent or malformed."""
    element = item.get(tag)
    found = element.get("Value") if isinstance(element, dict) else None
    return found if isinstance(found, list) else []


def texts(item: Item, tag: str) -> tuple[str, ...]:
    """The element as texts."""
    return tuple(str(value).strip(" \0") for value in values(item, tag) if value is not None)


def text(item: Item, tag: str) -> str:
    """The element's first text, ``""`` without one."""
    return next(iter(texts(item, tag)), "")


def count(item: Item, tag: str) -> int | None:
    """The element as a whole number, None without one."""
    found = text(item, tag)
    return int(found) if found.isdecimal() else None


def items(item: Item, tag: str) -> list[Item]:
    """The items of a sequence."""
    return [value for value in values(item, tag) if isinstance(value, dict)]
