"""What the stages that learn from better and worse answers share: batches, the reference, and how well they rank."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from engine.runs.events import Progress
from engine.worker import adapters, added_rows
from engine.worker.trainer import TELL_EVERY, Journalled

if TYPE_CHECKING:
    _Journalled = Journalled
else:
    _Journalled = object  # both stand before the trainer of a stage


ROUNDING = 1e-5  # what two sums of a few hundred log-probabilities in fp32 may differ by, times beta


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """[rows, longest], filled up on the right with `value`."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *([value] * (longest - len(row)))] for row in rows])


def batch(
    ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], padding: int, before: str = ""
) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and completion_mask (1 where there is a loss), each [rows, longest].

    before  stands before the names
    """
    return {
        f"{before}input_ids": padded(ids, padding),
        f"{before}attention_mask": padded([[1] * len(row) for row in ids], 0),
        f"{before}completion_mask": padded([[int(one >= 0) for one in row] for row in labels], 0),
    }


class Heard:
    """A model that remembers the last thing it gave."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.output: Any = None

    def __call__(self, **inputs: Any) -> Any:
        self.output = self._model(**inputs)
        return self.output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Referred(_Journalled):
    """Put before a trainer that compares with a reference: the model as it is before the first step.

    Its log-probabilities are computed once and kept with the rows. So no second model is held, and a row that is seen
    more than once is read by the reference once. For an adapter that is new this is the model with the adapter switched
    off; one that was trained before (`recipe.adapter`) is part of the reference.
    """

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        model: Any = self.model
        train, held_out = rest["train_dataset"], rest["eval_dataset"]
        everything = len(train) + len(held_out or ())
        self._refer_done, self._told = 0, 0.0
        copied = "ref" in getattr(model, "peft_config", {})  # TRL's copy of the adapter at the beginning
        if copied:
            added_rows.mirror(model, adapters.NAME, "ref")
        self.train_dataset = self._with_reference(train, everything)
        if held_out is not None:
            self.eval_dataset = self._with_reference(held_out, everything)
        self.precompute_ref_logps = True
        if copied:
            model.delete_adapter("ref")

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # the rows are tokens already

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset  # done by `_with_reference`, which can be stopped and tells how far it is

    def _with_reference(self, dataset: Any, everything: int) -> Any:
        """The rows with their reference log-probabilities as columns; as they were when a stop was asked for."""
        model: Any = self.model
        training = model.training
        model.eval()
        found: dict[str, list[float]] = {}
        size = self.args.per_device_train_batch_size
        for rows in _slices(dataset, size):
            if self._run.stop_path.exists():
                model.train(training)
                return dataset
            for name, values in self.reference(self._prepare_inputs(self.data_collator(rows))).items():
                found.setdefault(name, []).extend(values.tolist())
            self._refer_done += len(rows)
            if time.monotonic() - self._told > TELL_EVERY or self._refer_done == len(rows):
                self._told = time.monotonic()
                self._journal.write(Progress(what="rows by the reference", done=self._refer_done, total=everything))
        model.train(training)
        for name, column in found.items():
            dataset = dataset.add_column(name, column)
        return dataset

    def reference(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Columns of a batch that the trainer wants from the reference: [rows] each."""
        raise NotImplementedError


def _slices(dataset: Any, size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(dataset), size):
        yield [dataset[at] for at in range(start, min(start + size, len(dataset)))]


def pairs_right(margins: Sequence[float]) -> float:
    """Of pairs, the share whose better answer is ahead; one that is level but for rounding counts half, as a guess would.

    >>> pairs_right([1.5, -0.2, 0.0])
    0.5
    """
    return sum(0.5 if abs(margin) <= ROUNDING else float(margin > 0) for margin in margins) / max(1, len(margins))


def ranked_right(better: Sequence[float], worse: Sequence[float]) -> float:
    """Of all pairs of one of `better` and one of `worse`, the share in which the first is ahead; level counts half.

    >>> ranked_right([2.0, 1.0], [1.0, 0.0])
    0.875
    """
    return pairs_right([one - other for one in better for other in worse])
