"""A WordPiece tokenizer trained on the corpus that the text tower will read."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_INSIDE = "##"  # before a piece that does not begin a word


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A lower-casing WordPiece tokenizer, the same from the same texts.

    Digits stay whole numbers as far as the vocabulary goes, units are split off.

    Args:
        texts: the corpus.
        vocab_size: of the vocabulary, special tokens and single letters included.
    """
    corpus = list(texts)
    learner = _untrained(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - a vocabulary entry, not a secret
    # The trainer numbers letters inside words in the order of a hash table, another in every process, and breaks ties of
    # frequency by number. Told of as special tokens they have their numbers beforehand; the tokenizer made of the
    # vocabulary then holds them as pieces like any other.
    named = [*SPECIALS, *sorted(_letters_inside(learner, corpus))]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=named, min_frequency=2, show_progress=False)
    learner.train_from_iterator(corpus, trainer)
    pieces = learner.get_vocab()
    tokenizer = _untrained(models.WordPiece(pieces, unk_token="[UNK]"))  # noqa: S106
    tokenizer.add_special_tokens(list(SPECIALS))
    ids = [(name, pieces[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer


def _untrained(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _letters_inside(tokenizer: Tokenizer, corpus: Iterable[str]) -> set[str]:
    """Letters that do not begin a word, with the prefix of such pieces."""
    texts = (tokenizer.normalizer.normalize_str(text) for text in set(corpus))
    words = {word for text in texts for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    return {_INSIDE + letter for word in words for letter in word[1:]}
