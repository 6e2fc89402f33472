"""What a run's steps come to as a speed."""

from __future__ import annotations

import pytest

from engine.worker.pace import Pace, Pass, fitted


def test_what_is_computed_without_padding_counts_without_it() -> None:
    pace = Pace()
    for end_to_end in (False, True):
        for padded, laid in ((100, 60), (80, 70)):
            pace.batch(padded)
            if end_to_end:
                pace.laid(laid)
                pace.laid(7)  # what is read beside it
        pace.computed()
        pace.laid(9)  # of an evaluation
        made = pace.stepped()
        assert (made.tokens, made.batches, pace.padded) == ((130, 2, False) if end_to_end else (180, 2, True))
    speed = pace.speed("here")
    assert speed is not None and not speed.padded


@pytest.mark.parametrize(("processor", "busy"), [(1.98, False), (1.6, False), (1.2, True)])
def test_whether_others_had_the_processor(processor: float, busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that could have computed for two seconds of each step."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    pace = Pace()
    pace.passes += [Pass(100, 1, 1.0, 0.1, processor)] * 3
    speed = pace.speed("here")
    assert speed is not None and speed.busy is busy


def step(tokens: int, batches: int, computing: float) -> Pass:
    return Pass(tokens, batches, computing, 0.5, computing)


def test_rows_of_many_lengths_tell_a_batch_from_a_token() -> None:
    speed = fitted([step(n, 2, 2 * 0.3 + n * 0.01) for n in (100, 400, 250, 1000)], True, "here")
    assert (speed.seconds_per_batch, speed.seconds_per_token) == pytest.approx((0.3, 0.01))
    assert speed.seconds_per_update == 0.5


def test_rows_of_one_length_cannot() -> None:
    speed = fitted([step(100, 1, 1.0), step(101, 1, 3.0)], True, "here")
    assert speed.seconds_per_batch == 0 and speed.seconds_per_token * 201 == pytest.approx(4.0)


def test_no_part_is_below_nothing_and_all_seconds_are_there() -> None:
    for passes in ([step(10, 1, 1.0), step(100, 1, 100.0)], [step(10, 1, 9.0), step(100, 1, 1.0)]):
        speed = fitted(passes, True, "here")
        assert speed.seconds_per_batch >= 0 and speed.seconds_per_token >= 0
        assert speed.seconds(110, 2, 0) == pytest.approx(sum(one.computing for one in passes))
