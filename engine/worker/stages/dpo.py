"""Direct preference optimisation: the better of two answers becomes likelier than the worse one, against a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import DPOConfig, DPOTrainer

from engine.data.convert import Example
from engine.data.rendering import Rendered
from engine.data.tokenizer import Tokenizer
from engine.recipe import Recipe
from engine.worker import rows
from engine.worker.stages import Prepared, Stage
from engine.worker.stages.preferences import Heard, Referred, batch, pairs_right
from engine.worker.trainer import Journalled

# What some losses need to know of how many pairs are labelled the wrong way round: EXO's own advice; a tenth for rDPO.
_WRONG = {"exo_pair": 1e-3, "robust": 0.1}


def sides(tokenizer: Tokenizer, example: Example) -> tuple[Rendered, Rendered]:
    return tokenizer.render_pair(example)


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    """Pairs of which both sides keep something of their answer."""
    found, most = rows.draw(recipe, folder, sides), recipe.settings.max_length

    def table(which: list[int]) -> Any:
        both = {"chosen_": found.side(0, which, most), "rejected_": found.side(1, which, most)}
        return rows.as_dataset(both) if which else None

    return Prepared(table(found.train), table(found.held_out), found.masked, found.dataset.sha256)


class Collator:
    """Pairs to a batch of twice as many rows: all the better answers, then all the worse ones."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, pairs: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        ids, labels = (
            [pair[f"{side}_{name}"] for side in ("chosen", "rejected") for pair in pairs]
            for name in ("input_ids", "labels")
        )
        known = {name: torch.tensor([pair[name] for pair in pairs]) for name in _REFERENCE if name in pairs[0]}
        return batch(ids, labels, self._padding) | known


_REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")


class DPO(Referred, Journalled, DPOTrainer):
    """The accuracy is the share of held-out pairs whose better answer has gained more against the reference than the
    worse one, the margin by how much (times beta); `likelier` is the share whose better answer the model itself finds
    likelier, token for token.
    """

    def __init__(self, **rest: Any) -> None:
        self._margins: list[float] = []
        self._gaps: list[float] = []
        super().__init__(data_collator=Collator(rest["processing_class"].pad_token_id), **rest)

    def reference(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(_REFERENCE, self.compute_ref_log_probs(self.model, inputs), strict=True))

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        heard = Heard(model)
        done = super().prediction_step(heard, inputs, True, ignore_keys)
        counts = inputs["completion_mask"][:, 1:].sum(1).cpu()
        sums = heard.output.log_probs.float().sum(1).cpu()
        better, worse = sums.chunk(2)
        known_better, known_worse = (inputs[name].cpu() for name in _REFERENCE)
        self._margins += (self.beta * ((better - known_better) - (worse - known_worse))).tolist()
        each_better, each_worse = (sums / counts).chunk(2)
        self._gaps += (each_better - each_worse).tolist()
        return done

    def measured(self) -> dict[str, Any]:
        margins, gaps = self._margins, self._gaps
        self._margins, self._gaps = [], []
        if not margins:
            return {}
        return {
            "accuracy": pairs_right(margins),
            "margin": sum(margins) / len(margins),
            "likelier": pairs_right(gaps),
        }


def config(recipe: Recipe, shared: dict[str, Any]) -> DPOConfig:
    settings = recipe.settings
    assert settings.beta is not None and settings.loss is not None  # `refusals` sees to it
    loss = settings.loss
    return DPOConfig(
        **shared,
        beta=settings.beta,
        loss_type=[loss],
        label_smoothing=_WRONG.get(loss, 0.0),
        max_length=None,  # rows are cut when they are tokenised
        disable_dropout=False,  # as the settings say
        remove_unused_columns=False,
        precompute_ref_log_probs=not settings.adapts,  # keeps TRL from loading a second model; see `Referred`
    )


STAGE = Stage(prepare, config, DPO)
