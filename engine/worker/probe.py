"""`python -m engine.worker.probe MODEL_FOLDER`: how fast this machine trains this model, from its first few layers.

Settings come as one JSON line on standard input, which is then held open: when it closes, whoever asked has gone, and
so does the probe. On standard output: a line {"done": N, "total": M} after each step, and at last either
{"seconds_per_batch": …, "seconds_per_token": …, "seconds_per_update": …} or {"code", "cause", "next_step"}.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from engine.errors import Exit, FtuiError
from engine.recipe import Data, Model, Recipe, Settings
from engine.speeds import Speed, Work, operations
from engine.worker.pace import Pace, Pass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.models.facts import ModelFacts

_DEEP = 3  # layers of the deeper measurement at least; the shallow one has one
_WARM, _TIMED = 1, 3  # steps at each length on a processor
_TIMED_GPU = 8
_PATIENCE = 2.0  # seconds that a step of the deeper measurement may take on a processor …
_CORE_RATE = 40e9  # … whose cores train at about this many operations a second each
_SHORT = 4  # the shorter length is a fourth of the longer


def main() -> int:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    folder, settings = Path(sys.argv[1]), msgspec.json.decode(sys.stdin.readline(), type=Settings)
    threading.Thread(target=_leave_with_the_caller, daemon=True).start()
    said = sys.stdout

    def report(done: int, total: int) -> None:
        print(json.dumps({"done": done, "total": total}), file=said, flush=True)

    try:
        with contextlib.redirect_stdout(sys.stderr):  # trainers print what they log
            reply = msgspec.to_builtins(measure(folder, settings, report))
    except Exception as error:
        from engine.worker import failures

        failure = failures.describe(error, None, "")
        reply = {"code": failure.code, "cause": failure.cause, "where": failure.where, "next_step": ""}
        if isinstance(error, FtuiError):
            reply["next_step"] = failure.next_step
    print(json.dumps(reply), file=said, flush=True)
    return 0


def _leave_with_the_caller() -> None:
    os.read(0, 1)  # past sys.stdin, whose lock the interpreter wants when it ends
    _thread.interrupt_main()  # not os._exit: there is a folder to clear away


def measure(folder: Path, settings: Settings, report: Callable[[int, int], None] = lambda done, total: None) -> Speed:
    """The speed of training all layers, from the steps of a shallow and a deeper piece of the model.

    Embedding, head and optimizer's start are the same in both, so the difference is what a layer costs. Frozen layers
    below trained ones are measured apart from those. A processor too slow for the plan's micro-batch takes fewer rows,
    then shorter ones; the straight line through two lengths goes on from there.
    Raises FtuiError for what cannot be trained as set; any error of the libraries.
    """
    from engine import hardware
    from engine.models import facts as model_facts
    from engine.models import support, trust

    trust.check(folder)
    facts, machine = model_facts.read(folder), hardware.read()
    if facts.shape != "causal":
        cause = "only a model that goes on with a text can be probed"
        raise FtuiError(Exit.PLAN_REFUSED, cause, str(folder), "a short run measures this one")
    for reason in support.reasons(facts, settings, machine, "sft"):
        raise FtuiError(Exit.PLAN_REFUSED, reason)
    deep = _depth(facts)
    slow = machine.device == "cpu"
    tokens = settings.micro_batch * settings.max_length
    if slow:
        tokens = min(tokens, _affordable(facts, settings, deep, machine.cores))
    rows = max(1, min(settings.micro_batch, tokens // settings.max_length))
    longest = max(8, min(settings.max_length, tokens // rows))
    lengths = (max(2, longest // _SHORT), longest)
    steps = _WARM + (_TIMED if slow else _TIMED_GPU)
    shapes = [(1, 1), (deep, deep)]  # (layers, trained layers)
    if settings.method == "freeze" and deep > 1:
        shapes.append((deep, 1))
    a_shape = len(lengths) * steps
    timed: list[list[list[Pass]]] = []  # of each shape, of each length
    padded, busy = True, False
    for number, (layers, trained) in enumerate(shapes):
        few = msgspec.structs.replace(
            settings,
            trained_layers=trained,
            micro_batch=rows,
            accumulation=1,
            epochs=1.0,
            warmup=0.0,
            eval_fraction=0.0,
        )

        def stepped(step: int, before: int = number * a_shape) -> None:
            report(before + step, len(shapes) * a_shape)

        pace = _trained(folder, few, layers, lengths, steps, stepped)
        passes, padded, busy = list(pace.passes), pace.padded, busy or pace.busy
        timed.append([passes[start + _WARM : start + steps] for start in range(0, a_shape, steps)])
    first, both, *rest = _costs(timed, slow)
    layer = np.maximum(both - first, 0.0) / max(1, deep - 1)  # never less than nothing, whatever disturbed one of them
    frozen = np.maximum(rest[0] - first, 0.0) / (deep - 1) if rest else 0.0 * layer
    count = settings.trained_layers if settings.method == "freeze" else facts.layers
    short, long, update = (first + layer * (count - 1) + frozen * (facts.layers - count)).tolist()
    token = max(0.0, long - short) / (rows * (lengths[1] - lengths[0]))
    batch = long - token * rows * longest
    if batch < 0:  # the line goes through zero at the least
        batch, token = 0.0, long / (rows * longest)
    return Speed(seconds_per_batch=batch, seconds_per_token=token, seconds_per_update=update, padded=padded, busy=busy)


def _depth(facts: ModelFacts) -> int:
    """Layers of the deeper piece: about as many as weigh what the head does, so that their cost stands out from it."""
    head, layer = facts.hidden * facts.vocabulary, facts.layer_parameters / facts.layers
    return min(facts.layers, max(_DEEP, round(head / max(1.0, layer)) + 1))


def _affordable(facts: ModelFacts, settings: Settings, layers: int, cores: int) -> int:
    """Tokens whose step stays within _PATIENCE on a processor."""
    parameters = layers * facts.layer_parameters / facts.layers + facts.hidden * facts.vocabulary
    return int(_PATIENCE * _CORE_RATE * cores / operations(facts, Work.of(settings)) / parameters)


def _costs(timed: list[list[list[Pass]]], slow: bool) -> list[NDArray[Any]]:
    """Of each shape: seconds of a micro-batch of short rows, of one of long rows, and of an update.

    The least disturbed steps tell depths and lengths apart; on a processor by what it spent, which says little of what
    else the machine is busy with. All of them together say how long that takes here and now.
    """

    def least(some: list[Pass]) -> float:
        return min(one.processor if slow else one.computing for one in some)

    every = [some for shape in timed for some in shape]
    stretch = sum(one.computing for some in every for one in some) / sum(len(some) * least(some) for some in every)
    return [
        np.array([*(stretch * least(some) for some in shape), median(one.updating for some in shape for one in some)])
        for shape in timed
    ]


def _trained(
    folder: Path,
    settings: Settings,
    layers: int,
    lengths: Sequence[int],
    steps: int,
    stepped: Callable[[int], None],
) -> Pace:
    """The model's first `layers`, trained as in a real run on `steps` micro-batches of random tokens of each length."""
    import datasets
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    from engine.models import facts, support
    from engine.runs.directory import RunDir
    from engine.runs.journal import Writer
    from engine.worker import build, trainer
    from engine.worker.stages import sft

    class InOrder(sft.SFT):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            rows: Any = self.train_dataset
            return SequentialSampler(rows)

    class Told(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            stepped(state.global_step)

    with tempfile.TemporaryDirectory(prefix="ftui-probe-") as place:
        run, piece = RunDir(Path(place)), Path(place) / "piece"
        vocabulary = _cut(folder, layers, piece)
        recipe = Recipe(
            name="probe", model=Model(source=str(piece)), data=Data(source="random tokens"), settings=settings
        )
        random = np.random.default_rng(settings.seed)
        rows = [
            random.integers(0, vocabulary, length).tolist()
            for length in np.repeat(lengths, steps * settings.micro_batch)
        ]
        arguments = sft.config(recipe, trainer.arguments(recipe, run, len(rows), 0) | {"save_strategy": "no"})
        model = build.trained(build.base_model(piece, recipe.model, settings), settings)
        training = InOrder(
            run=run,
            journal=Writer(run.journal_path),
            trained_before=0,
            origin={},
            without_padding=support.unpadded(facts.read(folder), settings),
            own_optimizer=build.optimizer(model, settings),
            model=model,
            args=arguments,
            train_dataset=datasets.Dataset.from_dict({"input_ids": rows, "labels": rows}),
            processing_class=build.tokenizer(piece),
        )
        training.add_callback(Told())
        training.train()
    return training.pace


def _cut(folder: Path, layers: int, piece: Path) -> int:
    """Make `piece` a folder of the same model with its first `layers` only; returns the size of its vocabulary.

    The files are links: weights of layers that the config does not name are never read.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.save_pretrained(piece)
    for file in folder.iterdir():
        if file.is_file() and not (piece / file.name).exists():
            (piece / file.name).symlink_to(file.resolve())
    return int(config.vocab_size)


if __name__ == "__main__":
    sys.exit(main())
