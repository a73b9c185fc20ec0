"""The tokenizer trained on a corpus: the same from the same texts, whatever the process, and a WordPiece one like any other."""

import random
import subprocess
import sys

from tokenizers import Tokenizer

from medvl.models.tokenizer import SPECIALS, train_tokenizer

AGAIN = (
    "import sys; from medvl.models.tokenizer import train_tokenizer as t; print(t(sys.stdin.read().splitlines(), 200).to_str())"
)


def many_ties() -> list[str]:
    """Sentences of invented words, in which many pairs of letters are equally frequent."""
    draw = random.Random(3)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 8))) for _ in range(300)]
    return [" ".join(draw.choices(words, k=12)) for _ in range(150)]


def test_the_same_texts_make_the_same_tokenizer_in_every_process() -> None:
    texts = many_ties()
    made = train_tokenizer(texts, 200).to_str()
    told = subprocess.run([sys.executable, "-c", AGAIN], input="\n".join(texts), capture_output=True, text=True, check=True)
    assert told.stdout.strip() == made
    assert train_tokenizer(iter(texts), 200).to_str() == made


def test_special_tokens_come_first_and_letters_are_ordinary_pieces() -> None:
    tokenizer = train_tokenizer(["Renal mass of 24 mm.", "renal cyst, 31 HU"] * 3, 120)
    assert [tokenizer.token_to_id(name) for name in SPECIALS] == list(range(len(SPECIALS)))
    assert tokenizer.get_vocab_size() <= 120
    assert tokenizer.encode("Renal  MASS").tokens == tokenizer.encode("renal mass").tokens == ["[CLS]", "renal", "mass", "[SEP]"]
    assert tokenizer.encode("##e").tokens[1:-1] == ["[UNK]", "[UNK]", "e"]  # as the name of a piece it would be one token
    assert tokenizer.decode(tokenizer.encode("cyst of 31 mm").ids) == "cyst of 31 mm"


def test_a_tokenizer_read_back_reads_alike() -> None:
    tokenizer = train_tokenizer(many_ties(), 200)
    again = Tokenizer.from_str(tokenizer.to_str())
    assert again.encode("abc dij", "fgh").ids == tokenizer.encode("abc dij", "fgh").ids
