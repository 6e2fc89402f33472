"""A run's picture in words: the heading, the meters, the outcome. Pure, from a RunView and a Status."""

from __future__ import annotations

import math

from engine.advice.fields import trains
from engine.models.sources import short_name
from engine.recipe import Recipe
from engine.runs.checks import learned, score
from engine.runs.events import Evaluation
from engine.runs.status import Status
from engine.runs.view import RunView
from engine.text import duration, plural, size

GLYPHS = {"queued": "○", "ready": "✓", "stopped": "■", "failed": "!", "lost": "!"}


def number(value: float | None) -> str:
    """A loss or a norm with about three digits: "0.41", "12.3", "0.0042", "1.2e-5"; "" while there is none."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "not finite"
    if value and abs(value) < 0.001:
        return rate(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"


def rate(value: float) -> str:
    """A learning rate: "1e-3", "9.5e-4"."""
    if not value or not math.isfinite(value):
        return "0" if value == 0 else "not finite"
    digits, power = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def left(seconds: float) -> str:
    """Time to go: "about 20 s left", "about 3 min left"."""
    words = duration(seconds)
    return f"{words if words.startswith('about') else 'about ' + words} left"


def alpha(total_steps: int) -> float:
    """The weight of the newest loss in the smoothed one: a short run gets a curve that keeps up with its fall."""
    return min(0.3, max(0.02, 25 / max(1, total_steps)))


def state_of(view: RunView, status: Status | None) -> str:
    """The state to show. The journal is the newest news; only `status` knows of processes that died or merely chat."""
    if status is not None and (
        status.job in ("serve", "export", "evaluate") or (status.ended and status.worker_alive is False)
    ):
        return status.state
    return view.state


def heading(view: RunView, state: str, hung: bool = False) -> list[str]:
    """What stands beside the run's name: state, step, epoch, time left or time taken."""
    total = view.start.total_steps if view.start else 0
    step = view.last.step if view.last else (view.start.from_step if view.start else 0)
    parts = ["! hung" if hung else f"{GLYPHS.get(state, '●')} {state}"]
    if state == "queued":
        return [*parts, view.detail]
    if state == "ready":
        parts.append(f"{step or total} steps" + (f" in {duration(took)}" if (took := trained_for(view)) else ""))
        return parts
    if total:
        parts.append(f"step {step}/{total}")
    if view.last is not None and view.start is not None and state in ("training", "stopped"):
        parts.append(f"epoch {view.last.epoch:.1f}/{view.start.epochs:g}")
    if view.last is not None and state == "training" and not hung:
        parts.append(left(view.last.seconds_left))
    if state in ("evaluating", "saving") and view.progress is not None:
        parts.append(f"{view.progress.done} of {view.progress.total} {view.progress.what}")
    return parts


def trained_for(view: RunView) -> float | None:
    """Seconds between the last attempt's start and its last step."""
    if view.start is None or view.last is None:
        return None
    return max(0.0, view.last.time - view.start.time)


def meters(view: RunView, smoothed: float | None, *, ended: bool, wide: bool) -> list[tuple[str, str]]:
    """Rows for `Meters`; "" where nothing was measured yet."""
    last = view.last
    rows = [
        ("loss", number(last.loss) if last else "")
        if last is None or last.reward is None
        else ("reward", number(last.reward)),
        ("smoothed", number(smoothed)),
        ("evaluation ◆", number(view.evaluated[-1].loss) if view.evaluated else ""),
        *([] if ended else [("learning rate", rate(last.learning_rate) if last else "")]),
        ("gradient norm", number(last.grad_norm) if last else ""),
        ("tokens/s", f"{last.tokens_per_second:,.0f}" if last else ""),
        ("memory", size(last.memory) if last else ""),
    ]
    if not ended:
        rows.append(("time left", duration(last.seconds_left) if last else ""))
    if wide and view.start is not None:
        start = view.start
        if start.parameters:
            rows.append(("trained", f"{_count(start.trained_parameters)} of {_count(start.parameters)}"))
        rows.append(("rows", f"{start.rows:,}" + (f" + {start.eval_rows:,} held out" if start.eval_rows else "")))
        rows.append(("trained tokens", f"{last.tokens:,}" if last else ""))
        if view.checkpoints:
            rows.append(("checkpoint", f"step {view.checkpoints[-1].step}"))
        if start.device:
            rows.append(("on", start.device))
    return rows


def _count(parameters: int) -> str:
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= scale:
            return f"{parameters / scale:.3g} {unit}"
    return str(parameters)


def recipe_lines(recipe: Recipe) -> list[str]:
    """What the run is made of, in two lines, for the time before there is anything to measure. Foreign text."""
    s = recipe.settings
    return [
        f"{short_name(recipe.model.source)}, {trains(s)}, on {recipe.data.source}",
        f"learning rate {rate(s.learning_rate)}, {s.epochs:g} epochs, {plural(recipe.effective_batch, 'row')} a step, "
        f"{s.max_length} tokens a row, {s.precision}",
    ]


def _checked(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The scores, and where the identity is not learned what to do. General questions tell what was forgotten: as many as before are good."""
    scores = {"identity": score(evaluation.identity), "general": score(evaluation.general)}
    parts = [f"{name} {before} → {after} of {count}" for name, (before, after, count) in scores.items() if count]
    if not parts:
        return []
    taught = learned(evaluation.identity)
    kept = all(after >= before for before, after, _ in scores.values())
    lines = [("good" if taught and kept else "warning", "   ".join([*parts, "right answers, before → after"]))]
    if not taught:
        lines.append(("more", "more epochs, or a higher learning rate, teach it: 2 makes a new run"))
    return lines


def outcome(view: RunView, status: Status | None, state: str) -> list[tuple[str, str]]:
    """Lines (level, text) on how it ended or what to know; at most three, and a note on the last try and on the rest. Foreign text, not yet safe."""
    lines: list[tuple[str, str]] = []
    if state in ("failed", "lost"):
        told: object = view.failure if view.failure is not None else status
        texts = [str(getattr(told, name, "")) for name in ("cause", "where", "next_step")]
        texts = [text for text in texts if text] or [f"the run {'failed' if state == 'failed' else 'is lost'}"]
        lines += [("bad" if index == 0 else "more", text) for index, text in enumerate(texts)]
    elif status is not None and status.hung:
        lines += [("warning", status.cause)]
        lines += [("more", text) for text in (status.where, "r ends it and goes on from the checkpoint") if text]
    elif state == "stopped" and status is not None and status.cause:
        lines += [
            ("warning", status.cause),
            *[("more", status.where)] * bool(status.where),
            ("more", "r goes on with both"),
        ]
    elif state == "stopped":
        kept = f"; the checkpoint of step {view.checkpoints[-1].step} is kept" if view.checkpoints else ""
        lines.append(("warning", f"stopped{kept}. r goes on from there."))
    elif state == "ready" and view.evaluation is not None:
        lines += _checked(view.evaluation)
    elif state == "ready":
        lines.append(("good", "trained. c talks to it."))
    if state == "ready" and len(view.evaluated) > 1 and view.evaluated[-1].accuracy is not None:
        first, last = view.evaluated[0].accuracy or 0, view.evaluated[-1].accuracy
        level = "good" if last > first or last == 1 else "warning"
        lines.append((level, f"held-out answers ranked right: {first:.0%} → {last:.0%}"))
    if view.retries and state not in ("failed", "lost"):
        again = view.retries[-1]
        lines.append(("note", f"try {len(view.retries) + 1}: {again.change}, after {again.cause}"))
    if view.notes and state not in ("failed", "lost"):
        lines.append(("note", view.notes[-1].text))
    return lines
