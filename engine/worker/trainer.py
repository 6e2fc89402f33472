"""What every stage's trainer has: a journal, checkpoints that are whole or not there, and a stop that saves first."""

from __future__ import annotations

import math
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from engine.recipe import Recipe, Settings
from engine.runs import checkpoints
from engine.runs.directory import RunDir
from engine.runs.events import Checkpoint, Evaluated, Note, Progress, Retired, Step
from engine.runs.journal import Writer
from engine.worker import adapters, failures, plateau, unpadded
from engine.worker.pace import Pace

MOST_SKIPPED = 20  # from torch's first scale of 2^16 on that is 2^-4, where nothing but NaN overflows
TELL_EVERY = 10.0  # seconds between two words on an evaluation that lasts


def arguments(recipe: Recipe, run: RunDir, rows: int, held_out: int) -> dict[str, Any]:
    """The recipe in the words that all trainers share. Every value that matters is set; none is left to a default."""
    settings = recipe.settings
    per_epoch = math.ceil(math.ceil(rows / settings.micro_batch) / settings.accumulation)
    steps = max(1, math.ceil(per_epoch * settings.epochs))
    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(run.checkpoints / ".staging-trainer"),
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.micro_batch,
        "per_device_eval_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": round(steps * settings.warmup),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "neftune_noise_alpha": settings.neftune,
        "optim": settings.optimizer,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": not cuda,
        "bf16": settings.precision == "bf16",
        "fp16": settings.precision == "fp16",
        "dataloader_pin_memory": cuda,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not a number must be seen
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "eval_strategy": "steps" if held_out else "no",
        "eval_steps": settings.save_every if held_out else None,
    }


if TYPE_CHECKING:
    _Trainer = Trainer
else:
    _Trainer = object  # it stands before the trainer of a stage, whose methods `super()` then means


class Journalled(_Trainer):
    """Put before a trainer's class: writes each step to the journal and commits each checkpoint by rename.

    trained_before  trained tokens of the attempts before this one
    origin          what a checkpoint's manifest says about where it comes from (hashes, versions)
    lora_plus       how many times the rate LoRA's B learns at
    without_padding  micro-batches are computed without it, where the model can (engine/worker/unpadded.py)
    own_optimizer   its class and options, in the place of the trainers' own
    """

    def __init__(
        self,
        *,
        run: RunDir,
        journal: Writer,
        trained_before: int,
        origin: dict[str, Any],
        lora_plus: float | None = None,
        without_padding: bool = False,
        own_optimizer: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.pace = Pace()  # of this attempt
        if without_padding:
            unpadded.install(self.model, self.pace.laid)
        if own_optimizer is not None:
            self.optimizer_cls_and_kwargs = own_optimizer
        # TRL holds the adapter of a quantised base in bf16, where small updates are lost; it is small, so keep fp32.
        for parameter in rest["model"].parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self._run = run
        self._journal = journal
        self._origin = origin
        self._lora_plus = lora_plus
        self._trained = trained_before
        self._skipped = 0  # optimizer steps left out one after another
        self._read = 0  # tokens of this optimizer step so far, padding left out
        self.evaluated = -1  # the step of the last evaluation

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        computed, read, trained = self.counts(inputs)
        self.pace.batch(computed)
        self._read += read
        self._trained += trained
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self.pace.computed()
        return loss

    def counts(self, inputs: dict[str, Any]) -> tuple[int, int, int]:
        """Tokens of a micro-batch: computed, without the padding, and those with a loss."""
        mask = inputs["labels"] != -100 if "labels" in inputs else inputs["completion_mask"]
        return inputs["input_ids"].numel(), int(inputs["attention_mask"].sum()), int(mask[:, 1:].sum())

    def rewarded(self) -> float | None:
        """The mean reward of the answers that this step learned from."""
        return None

    def measured(self) -> dict[str, Any]:
        """What the last evaluation found beside the loss, as fields of `Evaluated`."""
        return {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        # The journal first: callbacks of `super().log` write samples, which follow the loss of their step.
        if "loss" in logs:
            self._write_step(logs)
        elif "eval_loss" in logs:
            self.evaluated = self.state.global_step
            self._journal.write(Evaluated(step=self.state.global_step, loss=logs["eval_loss"], **self.measured()))
        super().log(logs, start_time)

    def _write_step(self, logs: dict[str, float]) -> None:
        step, loss, grad_norm = self.state.global_step, logs["loss"], float(logs.get("grad_norm") or 0.0)
        # In fp16 the loss is scaled up; where that overflows, the step is left out and the scale halved: a search that ends.
        self._skipped = self._skipped + 1 if self.accelerator.optimizer_step_was_skipped else 0
        if not math.isfinite(loss) or not (math.isfinite(grad_norm) or 0 < self._skipped <= MOST_SKIPPED):
            raise failures.NotANumber(
                f"the loss is no longer a number at step {step} (loss {loss}, gradient norm {grad_norm})"
            )
        seconds = self.pace.stepped().seconds
        self._journal.write(
            Step(
                step=step,
                epoch=float(self.state.epoch or 0.0),
                loss=loss,
                reward=self.rewarded(),
                learning_rate=logs["learning_rate"],
                grad_norm=grad_norm,
                tokens=self._trained,
                tokens_per_second=self._read / max(1e-9, seconds),
                memory=memory_in_use(),
                seconds_left=self.pace.mean * (self.state.max_steps - step),
            )
        )
        self._read = 0

    def create_optimizer(self, *given: Any) -> Any:
        new = self.optimizer is None
        made = super().create_optimizer(*given)
        if new and self._lora_plus:
            adapters.quicken(made, self.model, self._lora_plus)
        return made

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """What a checkpoint brings, but for the learning rates: there the recipe holds, which may have changed."""
        scheduler, optimizer = self.lr_scheduler, self.optimizer
        assert scheduler is not None and optimizer is not None
        rates = list(scheduler.base_lrs)
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or scheduler.base_lrs == rates:
            return
        for group, rate, base in zip(optimizer.param_groups, rates, scheduler.base_lrs, strict=True):
            group["lr"] *= rate / base
            group["initial_lr"] = rate
        scheduler.base_lrs = rates
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        trained = (weight for weight in model.parameters() if weight.requires_grad)
        if not all(bool(weight.isfinite().all()) for weight in trained):
            # The last update spoilt them: its loss was a number, and no later one will be.
            raise failures.NotANumber(f"a weight is no longer a number after step {step}")
        self._journal.write(Progress(what="a checkpoint", done=0, total=0))
        stage = Path(str(self.args.output_dir)) / f"checkpoint-{step}"
        shutil.rmtree(stage, ignore_errors=True)
        final = self._run.checkpoints / checkpoints.name(step)
        try:
            # Past TRL's trainers, whose own addition is a model card.
            Trainer._save_checkpoint(self, model, trial)
            (stage / "training_args.bin").unlink(missing_ok=True)  # a pickle that can hold the hub's token
            checkpoints.commit(stage, final, self._origin)
        except Exception as error:
            shutil.rmtree(stage, ignore_errors=True)
            if not failures.is_disk_full(error):
                raise
            # The last checkpoint is intact, and the next one may find room.
            self._journal.write(Note(text=f"the disk is full: no checkpoint at step {step}; training goes on"))
            return
        self._journal.write(Checkpoint(step=step, path=str(final.relative_to(self._run.path))))
        try:
            for retired in checkpoints.retire(self._run, keep=2):
                self._journal.write(Retired(step=retired))
        except OSError as error:  # what is too many stays, until the next checkpoint
            self._journal.write(
                Note(text=f"an old checkpoint could not be removed: {error.strerror}; training goes on")
            )


class Watch(TrainerCallback):
    """The start, and between optimizer steps: samples, chat requests, a stop that was asked for, a flat loss.

    begin    called with the number of optimizer steps when training begins
    sample   called with the step when the probe is due
    between  called after each step; answers chat requests
    """

    def __init__(
        self,
        run: RunDir,
        journal: Writer,
        settings: Settings,
        begin: Callable[[int], None],
        sample: Callable[[int], None],
        between: Callable[[], None],
    ) -> None:
        self._run, self._journal, self._settings = run, journal, settings
        self._begin, self._sample, self._between = begin, sample, between
        self._told = 0.0  # when the journal last heard of an evaluation

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._begin(state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._run.stop_path.exists():
            control.should_save = control.should_training_stop = True
        return control

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A batch of the held-out rows is done: the journal says so now and then, as long as it lasts."""
        if (now := time.monotonic()) - self._told > TELL_EVERY:
            self._told = now
            self._journal.write(Progress(what="held-out rows", done=0, total=0))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if not state.log_history or "loss" not in state.log_history[-1]:
            return control
        step, settings = state.global_step, self._settings
        if step % settings.sample_every == 0 and step < state.max_steps:
            self._sample(step)
        self._between()
        if settings.stop_on_plateau and not control.should_training_stop:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            if plateau.flat(losses, steps_per_epoch=max(1, round(state.max_steps / args.num_train_epochs))):
                self._journal.write(Note(text=f"stopped at step {step}: the loss is flat"))
                control.should_save = control.should_training_stop = True
        return control


def memory_in_use() -> int:
    """Bytes in use at most so far: on the card, or resident in this process. Between steps it is less."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
