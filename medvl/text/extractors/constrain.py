"""Decoding that cannot leave a schema: at each step only tokens that keep the text the beginning of a document."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessor

from medvl.errors import ConfigError
from medvl.text.extractors.schema import FlatSchema, State


class TokenTree:
    """The texts of a tokenizer's tokens, by token in `texts` and as a tree of characters.

    Args:
        tokenizer: of the transformers library; special tokens and parts of characters are left out.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.root: dict[str, Any] = {}
        self.texts: dict[int, str] = {}
        special, anchor = set(tokenizer.all_special_ids), self._anchor(tokenizer)
        ids = [i for i in range(len(tokenizer)) if i not in special]
        lead = tokenizer.decode([anchor], clean_up_tokenization_spaces=False)
        texts = tokenizer.batch_decode([[anchor, i] for i in ids], clean_up_tokenization_spaces=False)
        for token, text in zip(ids, texts, strict=True):
            if text.startswith(lead) and len(text) > len(lead) and "\ufffd" not in text:
                self._insert(text[len(lead) :], token)

    @staticmethod
    def _anchor(tokenizer: Any) -> int:
        """A token in front, because some tokenizers drop the space of a first token."""
        return int(tokenizer("x", add_special_tokens=False)["input_ids"][-1])

    def _insert(self, text: str, token: int) -> None:
        node, self.texts[token] = self.root, text
        for character in text:
            node = node.setdefault(character, {})
        node.setdefault("", []).append(token)

    def allowed(self, schema: FlatSchema, state: State) -> dict[int, State]:
        """Each token that may come next, and the state after it."""
        found: dict[int, State] = {}
        open_nodes = [(self.root, state)]
        while open_nodes:
            node, here = open_nodes.pop()
            found |= dict.fromkeys(node.get("", ()), here)
            for character, child in node.items():
                after = schema.advance(here, character) if character else frozenset()
                if after:
                    open_nodes.append((child, after))
        return found


class SchemaProcessor(LogitsProcessor):  # type: ignore[misc]
    """Masks the logits of tokens that would leave the schema; after a whole document only the end token is left.

    Args:
        schema: what to write; tree: of the tokenizer; prompt_length: tokens before the first generated one; end: end token.

    Raises:
        ConfigError: the tokenizer has no token for a character of the schema, so some documents could not be written.
    """

    def __init__(self, schema: FlatSchema, tree: TokenTree, prompt_length: int, end: int) -> None:
        lacking = sorted(c for c in schema.alphabet if not tree.root.get(c, {}).get(""))
        if lacking:
            raise ConfigError(f"the tokenizer has no token for {lacking} alone; use a byte-level one, as language models do")
        self.schema, self.tree, self.prompt_length, self.end = schema, tree, prompt_length, end
        self._next: dict[State, dict[int, State]] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """(B, T) token ids and (B, V) logits to logits with -inf where the document would break."""
        masked = torch.full_like(scores, float("-inf"))
        for row, ids in enumerate(input_ids[:, self.prompt_length :].tolist()):
            state = self.schema.start
            for token in ids:
                if token == self.end:
                    break
                state = self._after(state)[token]
            allowed = [self.end] if self.schema.is_complete(state) else list(self._after(state))
            masked[row, allowed] = torch.nan_to_num(scores[row, allowed], nan=0.0, neginf=torch.finfo(scores.dtype).min)
        return masked  # type: ignore[return-value]

    def _after(self, state: State) -> dict[int, State]:
        if state not in self._next:
            self._next[state] = self.tree.allowed(self.schema, state)
        return self._next[state]
