"""Rows that say again what others said: duplicates, one prompt with several answers, one answer to many prompts.

Only 64 bits of each text are kept: among ten million texts the chance that any two are mistaken for one is 3 in a million.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from engine.data.convert import Example
from engine.data.findings.chunk import Chunk
from engine.data.findings.kinds import Finding, Level, excerpt, percent, rows_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CALLS = attrgetter("tool_calls")
_MANY = 0.05  # of the rows being duplicates is no accident any more
_FREQUENT = 0.2  # of the answers being one and the same is worth a word
_LOPSIDED = 0.8  # and this is what a model learns to say always
_FEWEST = 20  # rows; in fewer, shares say little
_LABELS = 12  # different answers at most, for them to be the labels of a classification


class Repeats:
    """Hashes of each row, its prompt and its answer, in the order of the data set."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        self.rows = array("I")
        self._whole, self._prompts, self._answers = array("q"), array("q"), array("q")
        self._labels = array("b")  # -1 for rows without
        self._asked = False  # prompts that have one answer each
        self._last = ""  # "last " where conversations have answers before the one that is compared

    def look(self, chunk: Chunk) -> None:
        for example, (roles, contents), answer in zip(chunk.examples, chunk.turns, chunk.answers, strict=True):
            prompt, whole = hash(contents[:-1]), hash((roles, contents))
            if example.rejected is not None:
                whole = hash((whole, tuple([message.content for message in example.rejected])))
            elif example.label is None and roles and roles[-1] == "assistant":
                self._asked = True
                if roles.count("assistant") > 1:
                    self._last = "last "
            if example.tools or any(map(_CALLS, example.messages or ())):
                tools = repr(example.tools), repr(list(map(_CALLS, example.messages or ())))
                prompt, whole = hash((prompt, tools)), hash((whole, tools))
            self.rows.append(example.row)
            self._whole.append(whole)
            self._prompts.append(prompt)
            self._answers.append(hash(answer))
            self._labels.append(-1 if example.label is None else example.label)

    @cached_property
    def first(self) -> NDArray[Any]:
        """Of each row, the index of the first one that says the same (its own, if it is no duplicate)."""
        import numpy as np

        keys = np.array(self._whole) * 3 + np.array(self._labels)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return first[inverse]

    def unique(self) -> NDArray[Any]:
        """Indices of the rows without the duplicates."""
        import numpy as np

        return np.flatnonzero(self.first == np.arange(len(self.first)))

    def findings(self) -> list[Finding]:
        if not self.rows:
            return []
        return [*self._duplicates(), *self._contradictions(), *self._same_prompt(), *self._same_answer()]

    def _numbers(self, where: Any) -> array[int]:
        """Row numbers at the indices, or where the mask is set."""
        import numpy as np

        return array("I", np.array(self.rows)[where].tobytes())

    def _duplicates(self) -> list[Finding]:
        import numpy as np

        again = self.first != np.arange(len(self.first))
        rows = self._numbers(again)
        if not rows:
            return []
        message = f"{rows_text(len(rows), 'repeats', 'repeat')} an earlier one word for word"
        earlier = self.rows[int(self.first[again][0])]
        example = f"row {rows[0]} is row {earlier}: {self._said(int(self.first[again][0]))}"
        level: Level = "warning" if len(rows) >= max(_FEWEST, _MANY * len(self.rows)) else "note"
        fix = "keep the first of each; else it counts as often as it stands there"
        return [Finding("duplicates", level, message, rows, len(rows), example, fix, "drop-duplicates")]

    def _contradictions(self) -> list[Finding]:
        import numpy as np

        _, inverse = np.unique(np.array(self._whole), return_inverse=True)
        labels = np.array(self._labels)
        good, bad = (np.bincount(inverse, labels == label) > 0 for label in (1, 0))
        rows = self._numbers((good & bad)[inverse])
        if not rows:
            return []
        message = f"{rows_text(len(rows), 'is', 'are')} rated good in one place and bad in another"
        example = f"row {rows[0]}: {self._said(self.rows.index(rows[0]))}"
        fix = "leave both out, or decide"
        return [Finding("contradictions", "problem", message, rows, len(rows), example, fix, "drop-contradictions")]

    def _same_prompt(self) -> list[Finding]:
        import numpy as np

        if not self._asked:
            return []
        unique = self.unique()
        prompts = np.array(self._prompts)[unique]
        _, inverse, counts = np.unique(prompts, return_inverse=True, return_counts=True)
        several = counts[inverse] > 1
        rows = self._numbers(unique[several])
        if not rows:
            return []
        message = f"{rows_text(len(rows), 'shares its', 'share their')} prompt with another and answer it differently"
        at, other = (int(index) for index in unique[inverse == inverse[several][0]][:2])
        example = f"row {self.rows[at]} as row {self.rows[other]}: {self._asks(at)}"
        fix = "nothing to do, if several answers are right"
        return [Finding("same-prompt", "note", message, rows, len(rows), example, fix)]

    def _same_answer(self) -> list[Finding]:
        """One answer that stands in very many rows, or the balance of labels where answers are such."""
        import numpy as np

        if not self._asked or len(self.rows) < _FEWEST:
            return []
        _, index, inverse, counts = np.unique(
            np.array(self._answers), return_index=True, return_inverse=True, return_counts=True
        )
        order = np.argsort(-counts, kind="stable")
        share = counts[order[0]] / len(self.rows)
        if share < _FREQUENT or len(counts) == len(self.rows):
            return []
        said = [excerpt(self._said(int(index[at])), 16 if len(counts) <= _LABELS else 48) for at in order[:4]]
        if 1 < len(counts) <= _LABELS and len(self.rows) >= _FEWEST * len(counts):
            shares = ", ".join(
                f"{what} {percent(counts[at], len(self.rows))}" for what, at in zip(said, order, strict=False)
            )
            message = f"the {self._last}answers are {len(counts)} labels: {shares}{', …' if len(counts) > 4 else ''}"
        else:
            message = f"{percent(counts[order[0]], len(self.rows))} of the {self._last}answers are one and the same"
        rows = self._numbers(inverse == order[0])
        fix = "more rows with other answers, or fewer of these: what is said most is learned as always right"
        level: Level = "warning" if share >= _LOPSIDED else "note"
        return [Finding("answer-balance", level, message, rows, len(rows), f"row {rows[0]}: {said[0]}", fix)]

    def overlap(self, held_out: Collection[int], near: Mapping[int, int]) -> list[Finding]:
        """Rows held out for evaluation that stand in the training rows as well.

        held_out  their row numbers
        near      index of a row that nearly repeats -> index of the earlier one
        """
        import numpy as np

        held = np.isin(np.array(self.rows), np.fromiter(held_out, np.int64))
        if not held.any() or held.all():
            return []
        kept = np.arange(len(self.first))
        for index, of in sorted(near.items()):
            kept[index] = kept[of]
        root = kept[self.first]
        exact, nearly = (self._on_both_sides(group, held) for group in (self.first, root))
        rows = self._numbers(nearly)
        if not rows:
            return []
        how = "word for word" if exact.sum() == len(rows) else "exactly or nearly"
        message = f"{len(rows):,} of {int(held.sum()):,} evaluation rows stand in the training rows, {how}"
        action = "drop-duplicates" if exact.sum() == len(rows) else "drop-near-duplicates"
        example = f"row {rows[0]}: {self._said(int(np.flatnonzero(nearly)[0]))}"
        fix = "leave duplicates out; else the evaluation praises what was learned by heart"
        return [Finding("overlap", "warning", message, rows, len(rows), example, fix, action)]

    def _on_both_sides(self, group: NDArray[Any], held: NDArray[Any]) -> NDArray[Any]:
        """Mask of the held-out rows whose group has a row in training too."""
        import numpy as np

        training = np.zeros(len(group), bool)
        training[group[~held]] = True
        return held & training[group]

    def _said(self, index: int) -> str:
        example = self._examples[index]
        answers = [m.content for m in (example.chosen or example.messages or ()) if m.role == "assistant"]
        return excerpt(answers[-1] if answers else example.text or self._asks(index), 48)

    def _asks(self, index: int) -> str:
        asked = [message.content for message in self._examples[index].messages or () if message.role == "user"]
        return excerpt(asked[-1], 48) if asked else ""
