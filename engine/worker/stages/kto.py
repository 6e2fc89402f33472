"""Kahneman-Tversky optimisation: answers rated good become likelier, those rated bad less likely, against a reference."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from trl import KTOConfig, KTOTrainer

from engine.errors import Exit, FtuiError
from engine.recipe import Recipe
from engine.worker import rows
from engine.worker.rows import Drawn, Side
from engine.worker.stages import Prepared, Stage
from engine.worker.stages.preferences import Heard, Referred, batch, ranked_right
from engine.worker.trainer import Journalled


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    """Rated rows. Those that are trained on are put in order once: shuffled by the seed, good and bad evenly mixed. How far
    the model has moved is estimated from prompts with the answer of the row before them in the micro-batch, so the order
    is the same in every epoch, and answers of one rating alone would estimate it badly.
    """
    settings = recipe.settings
    found = rows.draw(recipe, folder)
    ratings = {at: bool(found.dataset.examples[at].label) for at in found.made}
    found.train = _mixed(found.train, ratings, settings.seed)
    if len({ratings[at] for at in found.train}) < 2:
        raise FtuiError(
            Exit.PLAN_REFUSED,
            "all rows that are trained on have the same rating, so there is nothing to tell apart",
            recipe.data.source,
            "add rows of the other rating, or use SFT for good answers alone",
        )

    def table(which: list[int]) -> Any:
        sides = {"": found.side(0, which, settings.max_length), "kl_": _mismatched(found, which, recipe)}
        return rows.as_dataset(sides, label=[ratings[at] for at in which]) if which else None

    return Prepared(table(found.train), table(found.held_out), found.masked, found.dataset.sha256)


def _mixed(which: list[int], ratings: dict[int, bool], seed: int) -> list[int]:
    """Shuffled, with the rarer rating spread evenly over the others."""
    drawn = random.Random(seed)
    placed: list[tuple[float, int]] = []
    for rating in (True, False):
        own = [at for at in which if ratings[at] is rating]
        drawn.shuffle(own)
        placed += [((index + 0.5) / len(own), at) for index, at in enumerate(own)]
    return [at for _, at in sorted(placed)]


def _mismatched(found: Drawn, which: list[int], recipe: Recipe) -> rows.Rows:
    """Each prompt with the answer of the row before it in its micro-batch, the first with that of the last."""
    made: list[Side] = []
    size = recipe.settings.micro_batch
    for start in range(0, len(which), size):
        together = [found.made[at][0] for at in which[start : start + size]]
        for own, other in zip(together, [together[-1], *together[:-1]], strict=True):
            made.append(_joined(own, other))
    return rows.Rows(made, recipe.settings.max_length)


def _joined(prompt: Side, answer: Side) -> Side:
    """The one up to where its answer begins, then the other's answer with what follows."""
    import numpy as np

    (ids, spans), (others, theirs) = prompt, answer
    begin, there = spans[0][0], theirs[0][0]
    moved = [(start - there + begin, stop - there + begin) for start, stop in theirs]
    return np.concatenate([ids[:begin], others[there:]]), moved


_REFERENCE = ("ref_logps", "ref_KL_logps")


class Collator:
    """Rated rows to a batch, with the mismatched ones beside."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        made = {"label": torch.tensor([row["label"] for row in found])}
        for before, name in (("", ""), ("KL_", "kl_")):
            ids, labels = ([row[name + column] for row in found] for column in ("input_ids", "labels"))
            made |= batch(ids, labels, self._padding, before)
        return made | {name: torch.tensor([row[name] for row in found]) for name in _REFERENCE if name in found[0]}


class KTO(Referred, Journalled, KTOTrainer):
    """The accuracy is the share of all pairs of a good and a bad held-out answer in which the good one has gained more
    against the reference, the margin by how much on average (times beta); `likelier` is the same share by how likely the
    model itself finds them, token for token.
    """

    def __init__(self, **rest: Any) -> None:
        self._heard: list[tuple[bool, float, float]] = []  # rated good?, gain, log-probability a token
        super().__init__(data_collator=Collator(rest["processing_class"].pad_token_id), **rest)

    def reference(self, inputs: dict[str, Any]) -> dict[str, Any]:
        known = zip(_REFERENCE, self.compute_ref_log_probs(self.model, inputs), strict=True)
        return {name: values for name, values in known if values is not None}

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        heard = Heard(model)  # the mismatched rows are asked first, so that the last thing it gives are the rows
        done = super().prediction_step(heard, inputs, True, ignore_keys)
        sums = heard.output.log_probs.float().sum(1).cpu()
        gains = self.beta * (sums - inputs["ref_logps"].cpu())
        each = sums / inputs["completion_mask"][:, 1:].sum(1).cpu()
        self._heard += zip(inputs["label"].tolist(), gains.tolist(), each.tolist(), strict=True)
        return done

    def measured(self) -> dict[str, Any]:
        heard, self._heard = self._heard, []
        good, bad = ([one for one in heard if one[0] is rating] for rating in (True, False))
        if not good or not bad:
            return {}
        gains, likely = (([one[which] for one in good], [one[which] for one in bad]) for which in (1, 2))
        return {
            "accuracy": ranked_right(*gains),
            "margin": sum(gains[0]) / len(good) - sum(gains[1]) / len(bad),
            "likelier": ranked_right(*likely),
        }


def config(recipe: Recipe, shared: dict[str, Any]) -> KTOConfig:
    settings = recipe.settings
    assert settings.beta is not None and settings.loss is not None  # `refusals` sees to it
    return KTOConfig(
        **shared,
        beta=settings.beta,
        loss_type=settings.loss,
        max_length=None,  # rows are cut when they are tokenised
        disable_dropout=False,  # as the settings say
        remove_unused_columns=False,
        train_sampling_strategy="sequential",  # see `prepare`
        precompute_ref_log_probs=not settings.adapts,  # keeps TRL from loading a second model; see `Referred`
    )


STAGE = Stage(prepare, config, KTO)
