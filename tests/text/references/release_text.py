"""RenalCLIP's cleaning of report text, character by character from its description; as a script it prints the hand cases."""

MARKS = ".)、,-"
ENDS = ".。；!?;"
SCORE = "R.E.N.A.L"
HAND = {
    "2-3 cm": "3 cm.",
    "Stones of 5 - 7 mm": "Stones of 7 mm.",
    "35-40 HU": "40 HU.",
    "Bosniak grade 2.": "Bosniak grade.",
    "T11-12.": "T11-.",
    "3.5-4 cm": "3.4 cm.",
    "A mass of 3.5.": "A mass of 3..",
    "version 1.2.3 ends": "version 1.3 ends.",
    "1. Mass of 3.5 cm.\n2) Cyst": "Mass of 3.5 cm.\nCyst.",
    "Bosniak grade 2.\n\nNo stone": "Bosniak grade No stone.",
    "R.E.N.A.L score of 7.5 mm": "R.E.N.A.L score of 7.5 mm.",
    "3、囊肿。": "囊肿。",
    "A cyst;\nno stone；\nsize?\nno!\nnothing。\n  \nmore": "A cyst;\nno stone；\nsize?\nno!\nnothing。\n  \nmore.",
    "12 mm , 14 ) and 9\t-\t8": "12 mm , and 8.",
    "": "",
}


def pieces(text):
    """Single characters, each with whether it is protected; a decimal point and the name of the score are one protected piece."""
    out, at, free = [], 0, 0
    while at < len(text):
        inside = at > free and at + 1 < len(text) and text[at - 1].isdecimal() and text[at + 1].isdecimal()
        if text.startswith(SCORE, at):
            out.append((SCORE, True))
            at += len(SCORE)
        elif text[at] == "." and inside:
            out.append((".", True))
            at, free = at + 1, at + 2  # the digit behind it opens no second decimal
        else:
            out.append((text[at], False))
            at += 1
    return out


def number_from(found, at):
    """Where the number that starts at `at` ends with its mark and the spaces around; None where none starts."""
    before = found[at - 1] if at else (" ", False)
    if not digit(found, at) or (not before[1] and (before[0].isalnum() or before[0] == "_")):
        return None
    while digit(found, at):
        at += 1
    at = spaces(found, at)
    if at == len(found) or found[at][1] or found[at][0] not in MARKS:
        return None
    return spaces(found, at + 1)


def digit(found, at):
    return at < len(found) and not found[at][1] and found[at][0].isdecimal()


def spaces(found, at):
    while at < len(found) and found[at][0].isspace():
        at += 1
    return at


def strip_numbers(text):
    """The text without its numbers, each line ended."""
    found, kept, at = pieces(text), [], 0
    while at < len(found):
        end = number_from(found, at)
        if end is None:
            kept.append(found[at])
        at = at + 1 if end is None else end
    lines = [[]]
    for piece in kept:
        if piece[0] == "\n":
            lines.append([])
        else:
            lines[-1].append(piece)
    return "\n".join(ended(line) for line in lines)


def ended(line):
    said = "".join(words for words, _ in line)
    if not said.strip():
        return said
    last, protected = next(piece for piece in reversed(line) if not piece[0].isspace())
    return said if last in ENDS and not protected else said.strip() + "."


if __name__ == "__main__":
    for given in HAND:
        print(f"{given!r:60} {strip_numbers(given)!r}")  # noqa: T201
