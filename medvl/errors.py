"""The error tree. Every error says what was expected, what was found, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MedvlError(Exception):
    """Root of every error that medvl raises on purpose."""


class InputError(MedvlError):
    """One input is unfit: skip this case, keep the reason, go on with the rest.

    Args:
        code: a reason code of `docs/reference/reason-codes.md`, such as ``missing_slice``.
        message: one sentence for a person, with the offending value and the next step. Never holds patient identifiers.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str]]:
        """Keep both arguments when the error crosses a process border."""
        return type(self), (self.code, self.message)


class ConfigError(MedvlError):
    """A recipe, option or manifest is wrong: stop before any work is done."""


class BundleError(MedvlError):
    """A model bundle is incomplete, altered or does not fit this input contract: refuse to use it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The hint of an error about an unknown `name`: the nearest of those `known`, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
