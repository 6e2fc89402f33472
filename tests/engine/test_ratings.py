"""Blind ratings: appended, never lost, counted once a row, and what they prove."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from engine import ratings
from engine.ratings import Rating, Ratings


def test_the_last_word_on_a_row_counts_and_nothing_is_lost(tmp_path: Path) -> None:
    path = ratings.path(tmp_path, "abc")
    noted = Ratings(path)
    assert not path.exists() and noted.tally([1, 2, 3]).rated == 0
    noted.add(Rating(row=1, better="first", left="second"))
    noted.add(Rating(row=2, better="tie", left="first"))
    noted.add(Rating(row=1, better="second", left="second"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(path.read_bytes().splitlines()) == 3
    with path.open("ab") as file:
        file.write(b'{"row":3,"bett')  # a crash in the middle of a line
    again = Ratings(path)
    assert again.by_row == noted.by_row and again.by_row[1].time > 0
    again.add(Rating(row=3, better="second", left="first"))
    tally = Ratings(path).tally([1, 2, 3])
    assert (tally.first, tally.second, tally.ties, tally.rated, tally.pairs, tally.known) == (0, 2, 1, 3, 3, False)
    assert Ratings(path).tally([2]).rated == 1  # rows that are not among these do not count


def test_what_is_rated_with_open_eyes_does_not_count(tmp_path: Path) -> None:
    path = ratings.path(tmp_path, "abc", "def")
    assert path.name == "abc-def.ratings.jsonl"
    noted = Ratings(path)
    noted.add(Rating(row=1, better="first", left="first"))
    noted.unblind()
    noted.add(Rating(row=2, better="second", left="first"))
    for found in (noted, Ratings(path)):
        tally = found.tally([1, 2])
        assert found.unblinded and (tally.first, tally.second, tally.known) == (1, 0, True)


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    path = ratings.path(tmp_path, "abc")
    path.symlink_to(elsewhere)
    with pytest.raises(OSError):
        Ratings(path).add(Rating(row=1, better="tie", left="first"))
    assert elsewhere.read_bytes() == b""


def test_sides_are_drawn_once_for_all_and_evenly() -> None:
    drawn = [ratings.left(42, row) for row in range(1000)]
    assert drawn == [ratings.left(42, row) for row in range(1000)] != [ratings.left(43, row) for row in range(1000)]
    assert 440 < drawn.count("first") < 560


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (9, 1, 0.021484375)]
)
def test_the_sign_test_is_that_of_the_books(first: int, second: int, p: float) -> None:
    assert ratings.sign_test(first, second) == pytest.approx(p)
