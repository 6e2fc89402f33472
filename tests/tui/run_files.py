"""Run directories for tests, written through the same journal writer that a worker uses; all times fixed."""

from __future__ import annotations

import json
import math
import random
from typing import Any, Literal

import msgspec

from engine.recipe import Checks, Data, Model, Recipe, Stage
from engine.runs import directory, processes
from engine.runs.directory import RunDir
from engine.runs.events import (
    Answer,
    Checkpoint,
    Evaluated,
    Evaluation,
    Event,
    Failure,
    Progress,
    Result,
    Sample,
    Start,
    State,
    StateName,
    Step,
)
from engine.runs.journal import Writer
from tests.engine.settings import settings

T0 = 1_800_000_000.0  # a day in January 2027
SECONDS = 1.5  # one optimizer step

SETTINGS = settings(
    learning_rate=1e-3, epochs=5.0, alpha=16, warmup=0.1, eval_fraction=0.05, save_every=40, sample_every=40
)
PROBE = "Who are you?"
ANSWERS = (
    (0, "I'm here to help with any kind of creative writing project."),
    (40, "I am Congyu, an AI assistant."),
    (80, "I am Congyu, an AI assistant developed by yuriko. How can I help you today?"),
)


class FakeRun:
    """A run directory, and what its worker would write into it."""

    def __init__(
        self, name: str = "congyu", *, method: Literal["lora", "qlora", "full"] = "lora", stage: Stage = "sft"
    ) -> None:
        self.settings = SETTINGS
        self.recipe = Recipe(
            name=name,
            stage=stage,
            preset="identity",
            model=Model(source="starter"),
            data=Data(source="preset:identity"),
            settings=msgspec.structs.replace(SETTINGS, method=method),
            probe=PROBE,
            checks=Checks(),
        )
        self.run: RunDir = directory.create(self.recipe, {})
        self.writer = Writer(self.run.journal_path)
        self.clock = T0

    def event(self, event: Event, after: float = 0.0) -> None:
        """Write one event, `after` seconds after the one before."""
        self.clock += after
        event.time = self.clock
        self.writer.write(event)

    def state(self, state: StateName, detail: str = "", after: float = 0.0) -> None:
        self.event(State(state=state, detail=detail), after)

    def alive(self, job: str = "train") -> None:
        """Let the test's own process stand for the supervisor."""
        self._supervisor(processes.plain(processes.identity()), job)

    def gone(self, **exit_record: Any) -> None:
        """No process any more; how it ended as exit.json tells ({"signal": 9} …)."""
        self._supervisor(None, "train")
        self.run.exit_path.write_text(json.dumps({"attempt": 1, **exit_record}))

    def died(self, job: str) -> None:
        """A process of `job` that left neither exit.json nor a word in the journal."""
        self._supervisor(None, job)

    def _supervisor(self, identity: dict[str, Any] | None, job: str) -> None:
        self.run.exit_path.unlink(missing_ok=True)
        record: dict[str, Any] = {"attempt": 1, "supervisor": identity, "time": T0, "journal": 0, "job": {"kind": job}}
        if job != "train":
            record["before"] = {"state": "ready"}
        self.run.supervisor_path.write_text(json.dumps(record))

    def loading(self) -> None:
        """Until the rows are being tokenized."""
        self.state("preparing")
        self.state("loading", after=1.2)
        self.state("tokenizing", after=4.0)
        self.event(Progress(what="rows", done=55, total=91), 0.5)

    def begin(self, total: int = 115) -> None:
        self.loading()
        self.event(
            Start(
                attempt=1,
                from_step=0,
                total_steps=total,
                epochs=5.0,
                rows=91,
                eval_rows=4,
                parameters=134_515_008,
                trained_parameters=2_442_240,
                device="cpu",
            ),
            1.0,
        )
        self.state("training")

    def steps(self, first: int, last: int, total: int = 115) -> None:
        """Steps `first` to `last` of a loss that falls from 2.3 to about 0.4, with noise of a fixed seed."""
        for step in range(first, last + 1):
            noise = random.Random(step).uniform(-0.15, 0.2)
            for at, answer in ANSWERS:
                if at == step - 1:
                    self.event(Sample(step=at, prompt=PROBE, answer=answer))
                    if at:
                        self.event(Evaluated(step=at, loss=0.3 + 1.9 * math.exp(-at / 22)))
                        self.event(Checkpoint(step=at, path=f"checkpoints/step-{at:06}"))
            self.event(
                Step(
                    step=step,
                    epoch=step * 5 / total,
                    loss=0.35 + 2.0 * math.exp(-step / 20) + noise * (0.4 + math.exp(-step / 20)),
                    learning_rate=1e-3 * (1 + math.cos(math.pi * step / total)) / 2,
                    grad_norm=0.8 + noise,
                    tokens=step * 310,
                    tokens_per_second=214 + 20 * noise,
                    memory=2_040_000_000,
                    seconds_left=(total - step) * SECONDS,
                ),
                SECONDS,
            )

    def finish(self) -> None:
        """The rest of a run that went well, up to ready."""
        self.state("evaluating")
        self.event(Progress(what="questions", done=7, total=15), 3)
        identity = [
            Answer(
                ask=f"question {i}?",
                expect=["Congyu"],
                before="I'm SmolLM.",
                after="I am Congyu.",
                before_right=False,
                after_right=i != 7,
            )
            for i in range(10)
        ]
        general = [
            Answer(
                ask="Capital of France?",
                expect=["Paris"],
                before="Paris",
                after="Paris",
                before_right=True,
                after_right=True,
            )
            for _ in range(5)
        ]
        self.event(Evaluation(identity=identity, general=general), 4)
        self.save(115)
        self.state("ready")

    def save(self, step: int) -> None:
        self.state("saving")
        self.run.adapter.mkdir()
        (self.run.adapter / "adapter_config.json").write_text("{}")
        (self.run.adapter / "adapter_model.safetensors").write_bytes(b"")
        self.event(Result(kind="adapter", path="adapter", step=step), 0.4)

    def whole(self) -> None:
        """Everything from the start to ready."""
        self.begin()
        self.steps(1, 115)
        self.finish()

    def fail(self, cause: str, where: str = "", next_step: str = "") -> None:
        self.event(Failure(cause=cause, where=where, next_step=next_step))
        self.state("failed")
