"""docs/combinations.md has a line for everything that can be chosen: nothing is offered that was not tried or refused."""

from __future__ import annotations

from pathlib import Path

from tests.bench.combinations import TABLES

PAGE = Path(__file__).parents[3] / "docs" / "combinations.md"


def test_everything_that_can_be_chosen_is_in_the_table() -> None:
    lines = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    tried = {cells[0].removeprefix("| ") for cells in lines}
    missing = [what for rows in TABLES.values() for what, _, _ in rows() if what not in tried]
    assert not missing, f"run `python -m tests.bench.combinations` again: {missing}"
