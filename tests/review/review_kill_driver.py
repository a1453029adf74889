"""A reviewer in a process of their own, to be killed by `test_review_desk`.

Usage: review_kill_driver.py RUN REVIEWER: judges one question after the other, and prints the name of each verdict once it was
taken.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cai.review.desk import Desk


def main(run: Path, reviewer: str) -> None:
    with Desk(run) as desk:
        print("ready", flush=True)
        while (question := desk.next(reviewer)) is not None:
            made = desk.judge(reviewer, question.answers.key, "a")
            print(made.pair, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
