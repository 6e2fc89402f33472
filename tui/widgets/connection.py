"""The line to a run's worker: opened when it is needed, opened anew where the worker has gone. No widget in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from engine.errors import FtuiError
from engine.runs import checkpoints, control, status
from engine.runs.chat import Chat, Reply, answers
from engine.runs.events import Result
from tui.widgets.conversation import Sampling, Side

if TYPE_CHECKING:
    from engine.runs.directory import RunDir


class Connection:
    """`open` and `answer` block, so they belong in a thread, one at a time; the rest may be called from any.

    loading  called in that thread before a worker is waited for, which may have to load the model first
    """

    def __init__(self, run: RunDir, loading: Callable[[], object]) -> None:
        self.run = run
        self._loading = loading
        self._chat: Chat | None = None

    @property
    def stands(self) -> bool:
        return self._chat is not None

    def open(self) -> Chat:
        """The connection; a new one, to a new worker if need be, where the old worker has gone (it may have exported)."""
        if self._chat is None or not answers(self.run.socket_path):
            self.hang_up()
            self._loading()
            control.serve(self.run)
            self._chat = Chat(self.run)
        return self._chat

    def answer(self, messages: list[dict[str, str]], side: Side, how: Sampling) -> Iterator[Reply]:
        """The answer of one side, piece by piece. FtuiError as `Chat.ask` and `control.serve` raise it."""
        return self.open().ask(
            messages,
            which=side,
            temperature=how.temperature,
            top_p=how.top_p,
            max_tokens=how.length,
            seed=how.seed,
        )

    def stop(self) -> None:
        """End the answer that is being given."""
        if self._chat is not None:
            with contextlib.suppress(FtuiError):
                self._chat.stop()

    def hang_up(self) -> None:
        chat, self._chat = self._chat, None
        if chat is not None:
            chat.close()


def step_of_weights(run: RunDir) -> int:
    """After which optimizer step the weights stand that answer: those that learn, else the result's, else those of the newest
    checkpoint. 0 where there are none yet."""
    now = status.read(run)
    if not now.ended:
        return now.step
    if run.result is None:
        return next((step for step, _ in checkpoints.committed(run)), 0)
    with status.Tail(run.journal_path) as tail:
        result = tail.last("result")
    return result.step if isinstance(result, Result) else now.step
