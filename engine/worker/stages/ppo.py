"""PPO: answers that earn more than was expected of them, token by token, become likelier, in small steps.

TRL has no PPO any more, so this is one of our own: clipped objective and values (Schulman and others, 2017), advantages by
GAE (2016), and a reward for staying near to the reference (Ouyang and others, 2022), which is the model with its adapter
switched off, or the adapter that the run began from. On the Trainer of transformers, and so on accelerate.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from trl.trainer.utils import use_adapter

from engine.recipe import PPO_PASSES, Recipe
from engine.worker.stages import Stage
from engine.worker.stages.grpo import InTurn
from engine.worker.stages.prompts import Worth, prepare
from engine.worker.trainer import Journalled

CLIP = 0.2  # how far a token's probability, and a value, may move in one round (both papers)
LAMBDA = 0.95  # of GAE; future rewards are not discounted: an answer is short
VALUE_WEIGHT = 0.1  # of the values' loss beside the policy's (TRL's PPO, when it had one)
_ROUND, _HEAD = "round.safetensors", "value_head.safetensors"


def advantages(rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """GAE of answers, [answers, tokens] each, 0 behind their end: what came of each token beyond what was expected.

    A_t = sum over l of LAMBDA^l (r_{t+l} + V_{t+l+1} - V_{t+l}), with V = 0 behind the end.
    """
    found = torch.zeros_like(values)
    later = torch.zeros_like(values[:, 0])
    after = torch.zeros_like(values[:, 0])
    for at in reversed(range(values.shape[1])):
        inside = mask[:, at]
        later = inside * (rewards[:, at] + after - values[:, at] + LAMBDA * later)
        after = inside * values[:, at]
        found[:, at] = later
    return found


def policy_loss(new: torch.Tensor, old: torch.Tensor, gained: torch.Tensor) -> torch.Tensor:
    """The clipped objective of each token, to be made small: `new` and `old` are log-probabilities."""
    ratio = (new - old).exp()
    return torch.max(-gained * ratio, -gained * ratio.clamp(1 - CLIP, 1 + CLIP))


def value_loss(new: torch.Tensor, old: torch.Tensor, came: torch.Tensor) -> torch.Tensor:
    """Half the squared error of each token's value, clipped as the objective is."""
    near = old + (new - old).clamp(-CLIP, CLIP)
    return 0.5 * torch.max((new - came) ** 2, (near - came) ** 2)


def whitened(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean 0 and deviation 1 over what the mask holds, 0 elsewhere."""
    held = values[mask > 0]
    return (values - held.mean()) / (held.std(unbiased=False) + 1e-8) * mask


class PPO(Journalled, Trainer):
    """A round draws one answer to each of micro_batch x accumulation prompts and makes PPO_PASSES optimizer steps of them.

    The round that is under way and the value head are kept in checkpoints, so that a resumed run goes on within it.
    """

    def __init__(self, *, recipe: Recipe, folder: Path, **rest: Any) -> None:
        rest.pop("eval_dataset")
        super().__init__(data_collator=list, **rest)
        model: Any = self.model
        self._settings, self._padding = recipe.settings, int(rest["processing_class"].pad_token_id)
        self._ends = sorted({*_listed(model.generation_config.eos_token_id), rest["processing_class"].eos_token_id})
        self._words = rest["processing_class"]
        self._worth = Worth(recipe, folder)
        if recipe.adapter is not None:
            model.load_adapter(recipe.adapter, "ref", is_trainable=False)
        self._reference = "ref" if recipe.adapter is not None else None
        self.value_head = torch.nn.Linear(model.config.get_text_config().hidden_size, 1).to(model.device)
        torch.nn.init.zeros_(self.value_head.weight)
        self._round: dict[str, torch.Tensor] = {}
        self._micro = 0  # micro-batches of this round so far

    # rows ---------------------------------------------------------------------------------------------------------

    @property
    def _answers(self) -> int:
        """Of a round."""
        return self._settings.micro_batch * self._settings.accumulation

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Each micro-batch comes with all prompts of its round; `_prepare_inputs` takes its part."""
        repeats = PPO_PASSES * self._settings.accumulation
        rows: Any = self.train_dataset
        order = InTurn(self, rows, 1, self._answers, repeats, True, self._settings.seed)
        made = DataLoader(rows, batch_size=self._answers, sampler=order, collate_fn=self.data_collator)
        return self.accelerator.prepare(made)  # type: ignore[no-any-return]

    def _prepare_inputs(self, inputs: Any) -> Any:
        if self._micro == 0:
            self._round = self._play(inputs)
        size, part = self._settings.micro_batch, self._micro % self._settings.accumulation
        if part == 0:
            self.value_head.zero_grad()  # the trainer clears the model's own gradients only
        self._micro = (self._micro + 1) % (PPO_PASSES * self._settings.accumulation)
        return {name: values[part * size : (part + 1) * size] for name, values in self._round.items()}

    def counts(self, inputs: Any) -> tuple[int, int, int]:
        return 0, 0, 0  # known when the answers are there, see `compute_loss`

    def rewarded(self) -> float | None:
        return float(self._round["score"].mean())

    # a round ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _play(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Draw the answers and weigh them; everything [answers, …], answers of one length, filled up on the right."""
        model: Any = self.model
        training = model.training
        model.eval()
        place, prompts = model.device, [row["prompt"] for row in rows]
        longest = max(map(len, prompts))
        ids = torch.tensor([[self._padding] * (longest - len(one)) + one for one in prompts], device=place)
        asked = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts], device=place)
        with self.accelerator.autocast():
            whole = model.generate(
                input_ids=ids,
                attention_mask=asked,
                max_new_tokens=self._settings.answer_length,
                do_sample=True,
                temperature=self._settings.temperature,
                top_k=0,
                top_p=1.0,
                pad_token_id=self._padding,
                eos_token_id=self._ends,
            )
        said = whole[:, longest:]
        ended = torch.isin(said, torch.tensor(self._ends, device=place)).int()
        mask = ((ended.cumsum(1) - ended) == 0).int()  # up to the end token, and with it
        made = {"ids": whole, "seen": torch.cat([asked, mask], 1), "mask": mask}
        old, values = self._read_by_parts(made)
        with use_adapter(model, self._reference):
            reference, _ = self._read_by_parts(made)
        model.train(training)
        answers = [row[: int(count)] for row, count in zip(said.tolist(), mask.sum(1), strict=True)]
        score = torch.tensor(
            self._worth(
                prompts,
                self._words.batch_decode(answers, skip_special_tokens=True),
                answers,
                [row["answer"] for row in rows],
            ),
            device=place,
        )
        rewards = -(self._settings.beta or 0.0) * (old - reference) * mask
        rewards[torch.arange(len(rows)), mask.sum(1) - 1] += score
        values = values * mask
        gained = advantages(rewards, values, mask)
        return made | {
            "old": old,
            "values": values,
            "came": gained + values,
            "gained": whitened(gained, mask),
            "score": score,
        }

    def _read_by_parts(self, made: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """`_read_out` of a whole round: a micro-batch at a time, since each token has a number for every word."""
        parts = zip(*(values.split(self._settings.micro_batch) for values in made.values()), strict=True)
        chances, values = zip(*(self._read_out(dict(zip(made, part, strict=True))) for part in parts), strict=True)
        return torch.cat(chances), torch.cat(values)

    def _read_out(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and value of each token of the answers, [answers, tokens] both.

        A value is what is expected before the token is drawn.
        """
        model: Any = self.accelerator.unwrap_model(self.model).get_base_model()
        ids, seen, length = inputs["ids"], inputs["seen"], inputs["mask"].shape[1]
        with self.accelerator.autocast():
            hidden = getattr(model, model.base_model_prefix)(
                input_ids=ids, attention_mask=seen, position_ids=(seen.cumsum(1) - 1).clamp(min=0), use_cache=False
            ).last_hidden_state[:, -length - 1 : -1]
            logits = model.get_output_embeddings()(hidden).float() / self._settings.temperature
        drawn = ids[:, -length:].unsqueeze(-1)
        chances = logits.gather(-1, drawn).squeeze(-1) - logits.logsumexp(-1)
        return chances, self.value_head(hidden.float()).squeeze(-1)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        mask = inputs["mask"]
        self._read += int(inputs["seen"].sum())
        self._trained += int(mask.sum())
        new, values = self._read_out(inputs)
        each = policy_loss(new, inputs["old"], inputs["gained"]) + VALUE_WEIGHT * value_loss(
            values, inputs["values"], inputs["came"]
        )
        # Every token of a step weighs the same; the trainer divides by the micro-batches.
        return (each * mask).sum() / (self._round["mask"].sum() / self._settings.accumulation)

    # optimizer and checkpoints --------------------------------------------------------------------------------------

    def create_optimizer(self, *given: Any) -> Any:
        made = super().create_optimizer(*given)
        if not any(weight is self.value_head.weight for group in made.param_groups for weight in group["params"]):
            made.add_param_group({"params": list(self.value_head.parameters()), "weight_decay": 0.0})
        return made

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or str(self.args.output_dir))
        save_file(self.value_head.state_dict(), folder / _HEAD)
        if self._micro:
            save_file({name: values.contiguous() for name, values in self._round.items()}, folder / _ROUND)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        folder, place = Path(resume_from_checkpoint), self.value_head.weight.device
        self.value_head.load_state_dict(load_file(folder / _HEAD, device=str(place)))
        with contextlib.suppress(FileNotFoundError):
            self._round = load_file(folder / _ROUND, device=str(place))
            step = int(folder.name.removeprefix("step-"))
            self._micro = step % PPO_PASSES * self._settings.accumulation


def _listed(ends: int | list[int] | None) -> list[int]:
    return [] if ends is None else [ends] if isinstance(ends, int) else ends


def config(recipe: Recipe, shared: dict[str, Any]) -> TrainingArguments:
    return TrainingArguments(**shared, remove_unused_columns=False)


STAGE = Stage(prepare, config, PPO, rewarded=True)
