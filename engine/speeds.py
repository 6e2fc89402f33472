"""Measured speeds of training, kept per hardware and per shape of model: what a forecast of time stands on.

speeds.json in the state folder: hardware -> shape -> list of `Measured`. A probe (`ftui probe`) writes there, and so
does every run that ends; a run's own speed beats a probe's.
"""

from __future__ import annotations

import time
from typing import Literal

import msgspec
from msgspec import Struct

from engine import paths
from engine.hardware import Hardware
from engine.models.facts import ModelFacts
from engine.recipe import Method, Settings

_FILE = "speeds.json"
_KEPT = 40  # measurements of one shape on one machine
_OF_BOTH_SIDES = 0.6  # of an encoder-decoder's weights, what a token of a text passes: see `operations`


class Work(Struct, frozen=True, kw_only=True):
    """What is computed a token, as far as it changes the speed. Fields that do not apply are left at their zeros.

    Rank and dropout are left out: they move the speed by a tenth or so, and a forecast must survive an edit of them.
    """

    method: Method
    precision: str
    checkpointing: bool
    attention: str
    targets: str = ""
    bits: int = 0
    trained_layers: int = 0
    packing: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Work:
        return cls(
            method=settings.method,
            precision=settings.precision,
            checkpointing=settings.gradient_checkpointing,
            attention=settings.attention,
            targets=settings.targets if settings.adapts else "",
            bits=settings.bits if settings.method == "qlora" else 0,
            trained_layers=settings.trained_layers if settings.method == "freeze" else 0,
            packing=settings.packing,
        )


class Speed(Struct, frozen=True, kw_only=True):
    """How long training takes, in seconds: so much a micro-batch, so much a token in it, so much an optimizer step.

    seconds_per_batch   what a micro-batch costs however few tokens it has
    seconds_per_token   what each token costs more
    seconds_per_update  what an optimizer step costs more
    padded              whether padding counts among the tokens; else they are those that are computed where rows lie end to
                        end, what they begin with once
    busy                others had the processor meanwhile, so that it says more of them than of this machine
    source              in words; `told` says more
    """

    seconds_per_batch: float
    seconds_per_token: float
    seconds_per_update: float = 0.0
    padded: bool = True
    busy: bool = False
    source: str = ""

    @property
    def told(self) -> str:
        """The source, and what to think of it."""
        return self.source + (", while others used it" if self.busy else "")

    def seconds(self, tokens: float, batches: float, updates: float) -> float:
        """Of training on `tokens` in `batches` micro-batches and `updates` optimizer steps."""
        return tokens * self.seconds_per_token + batches * self.seconds_per_batch + updates * self.seconds_per_update

    def scaled(self, factor: float, source: str) -> Speed:
        return Speed(
            seconds_per_batch=self.seconds_per_batch * factor,
            seconds_per_token=self.seconds_per_token * factor,
            seconds_per_update=self.seconds_per_update,
            padded=self.padded,
            busy=self.busy,
            source=source,
        )


class Measured(Struct, frozen=True, kw_only=True):
    """One measurement. `by` a probe or a run; `when` in seconds since 1970."""

    work: Work
    speed: Speed
    by: Literal["probe", "run"]
    when: float


_Known = dict[str, dict[str, list[Measured]]]


def known(hardware: Hardware, facts: ModelFacts) -> list[Measured]:
    """Everything measured with a model of this shape on this machine. Empty where nothing was, never raises."""
    return _read().get(_machine(hardware), {}).get(_shape(facts), [])


def best(measured: list[Measured], facts: ModelFacts, settings: Settings) -> Speed | None:
    """The speed of `settings` by what was measured: of the same work, first what nobody else disturbed, a run before a
    probe and the newest first; else that of the most alike work, scaled by the arithmetic of both. None where nothing
    comes near. Pure."""
    wanted = Work.of(settings)
    ordered = sorted(measured, key=lambda one: (not one.speed.busy, one.by == "run", one.when), reverse=True)
    for one in ordered:
        if one.work == wanted:
            return one.speed
    for one in ordered:
        # Other numbers, or weights unpacked at each step, go at another pace; more or fewer passes only scale it.
        if one.work.precision == wanted.precision and (one.work.bits, one.work.attention) == (
            wanted.bits,
            wanted.attention,
        ):
            factor = operations(facts, wanted) / operations(facts, one.work)
            return one.speed.scaled(factor, f"scaled from {one.work.method}, {one.speed.source}")
    return None


def lookup(hardware: Hardware, facts: ModelFacts, settings: Settings) -> Speed | None:
    """`best` of everything `known`."""
    return best(known(hardware, facts), facts, settings)


def operations(facts: ModelFacts, work: Work) -> float:
    """Floating point operations a token, in units of the model's parameters.

    A forward pass takes 2 of them and a backward pass 4; an adapter spares the 2 of the base weights' gradients; frozen
    layers below the trained ones have no backward pass at all; checkpointing runs the trained part forward once more.
    Of an encoder-decoder a text passes one half, and the fifth of it that is to be written the other.
    """
    if facts.shape == "seq2seq":
        return _OF_BOTH_SIDES * operations(msgspec.structs.replace(facts, shape="causal"), work)
    again = 2.0 if work.checkpointing else 0.0
    match work.method:
        case "full" | "galore":
            return 6.0 + again
        case "freeze":
            return 2.0 + (4.0 + again) * min(1.0, work.trained_layers / facts.layers)
        case _:
            return 4.0 + again


def record(
    hardware: Hardware, facts: ModelFacts, settings: Settings, speed: Speed, by: Literal["probe", "run"]
) -> None:
    """Keep a measurement; one of the same work by the same means is replaced, but by a disturbed one only a disturbed one."""
    work, everything = Work.of(settings), _read()
    shapes = everything.setdefault(_machine(hardware), {})
    same = (work, by, speed.busy)
    others = [one for one in shapes.get(_shape(facts), []) if (one.work, one.by, one.speed.busy) != same]
    shapes[_shape(facts)] = [*others, Measured(work=work, speed=speed, by=by, when=time.time())][-_KEPT:]
    paths.write_private(paths.state_dir() / _FILE, msgspec.json.format(msgspec.json.encode(everything), indent=1))


def _machine(hardware: Hardware) -> str:
    return hardware.device_name if hardware.gpu else f"{hardware.cpu}, {hardware.cores} cores"


def _shape(facts: ModelFacts) -> str:
    """Models of one shape are equally fast, whatever is in their weights."""
    return (
        f"{facts.model_type} h{facts.hidden} i{facts.intermediate} l{facts.layers} "
        f"a{facts.heads}x{facts.head_dim} k{facts.kv_heads} v{facts.vocabulary}"
    )


def _read() -> _Known:
    try:
        return msgspec.json.decode((paths.state_dir() / _FILE).read_bytes(), type=_Known)
    except (OSError, msgspec.DecodeError):
        return {}  # measurements can be made again
