"""A reviewer in a process of their own: saves decision after decision, and prints each one that was kept."""

import sys
from pathlib import Path

from medvl.review.desk import Reviews
from medvl.review.record import Choice, ConflictError, Decision, Person


def main(folder: str, who: str, n: int) -> None:
    """Decide the mass `n` times in turn; a conflict is looked at and tried again."""
    item, me = "renal_mass@kidney_left", Person(who, "reviewer")
    with Reviews(Path(folder)) as desk:
        for k in range(n):
            while True:
                now = desk.review("0123456789ab")
                decision = Decision(item, Choice.accept, comment=f"{who} {k}")
                try:
                    kept = desk.save(
                        "0123456789ab", decision, me, expected_version=now.versions.get(item, 0), results=now.answers.sha256
                    )
                except ConflictError:
                    sys.stdout.write("conflict\n")
                    continue
                sys.stdout.write(f"kept {kept.version} {kept.decision.comment}\n")
                sys.stdout.flush()
                break


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
