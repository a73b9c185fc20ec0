"""Links of persons: alike from every source, told apart by key, and honest about what they cannot tell."""

import pytest

from medvl.data.identity import patient_id
from medvl.data.person import Likeness, compared, fingerprint, joined, numbered, person_of

KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_link_is_the_patient_hash_behind_the_mark_of_its_key() -> None:
    assert person_of(KEY, " H7 ") == f"{fingerprint(KEY)}:{patient_id(KEY, 'H7')}"
    assert person_of(KEY, "H7", "STUDY-1") == person_of(KEY, "STUDY-1", "H7", "", "H7")
    assert person_of(KEY, "", "ANONYMOUS") == f"{fingerprint(KEY)}:"
    assert person_of(b"", "H7") == ""
    assert fingerprint(KEY) != fingerprint(OTHER)
    assert not numbered(person_of(KEY, "0000"))


def test_links_of_one_patient_are_joined_and_nothing_is_said_for_no_number() -> None:
    a, b, none = person_of(KEY, "A"), person_of(KEY, "B"), person_of(KEY)
    assert joined([a, none, b, "", a]) == " ".join(sorted([a, b]))
    assert joined([none, "", none]) == none
    assert joined([none, person_of(OTHER, "A")]) == " ".join(sorted([none, person_of(OTHER, "A")]))
    assert joined(["", ""]) == ""


@pytest.mark.parametrize(
    ("mine", "theirs", "told"),
    [
        (person_of(KEY, "A"), person_of(KEY, "A"), Likeness.same),
        (person_of(KEY, "A"), person_of(KEY, "S-1", "A"), Likeness.same),
        (person_of(KEY, "A"), person_of(KEY, "B", "S-1"), Likeness.other),
        (person_of(KEY, "A"), "", Likeness.no_link),
        (person_of(KEY, "A"), person_of(OTHER, "A"), Likeness.other_key),
        (person_of(KEY, "A"), person_of(KEY), Likeness.no_number),
        (person_of(KEY), person_of(KEY), Likeness.no_number),
    ],
)
def test_persons_are_compared_alike_from_both_sides(mine: str, theirs: str, told: Likeness) -> None:
    assert compared(mine, theirs) == compared(theirs, mine) == told
