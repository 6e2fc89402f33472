"""Four questions ahead of the method: is tuning the thing to do at all? PEFT overview.

Answered from the rows, the machine and the forecast; the person is asked only what nobody else can know: what it is for,
and by when.
"""

from __future__ import annotations

from engine.advice.fit import smallest, values_of
from engine.advice.kinds import Facts, Gate, Goal, Plan, Question, gigabytes
from engine.advice.numbers import GATE_ROWS, GUIDE, PEFT, WARN_ROWS
from engine.recipe import RL, Stage
from engine.text import duration

_DATA = "Is there enough data?"
_HARDWARE = "Is there the hardware?"
_RETRIEVAL = "Would retrieval or an API do?"
_TIME = "How soon is it needed?"
# A run shorter than this misses no deadline, so nobody is asked for one: seconds.
_SHORT = 3600
# A rough estimate of the time may be wrong by this factor.
_ROUGH = 2

_GOALS: dict[Goal, str] = {
    "persona": "a persona is what tuning is best at",
    "style": "a style is learned from examples, not looked up",
    "format": "tuning controls the output better than a prompt",
    "language": "a new language has to be learned; retrieval teaches none",
    "task": "a small tuned model can do one task well; try the base with examples in its prompt first",
}
# Where the columns already say what it is for.
_STAGES: dict[Stage, str] = {
    "dpo": "which answer is better cannot be looked up",
    "kto": "which answer is good cannot be looked up",
    "reward": "what people prefer cannot be looked up",
    **dict.fromkeys(RL, "what earns a reward cannot be looked up"),
}


def gate(facts: Facts, plan: Plan | None) -> Gate:
    """Whether to tune, by four questions. Without a plan its forecasts are not known.

    "do not tune" when any answer speaks against it, "unsure" when any leaves a doubt, else "tune".
    """
    questions = [_data(facts), _hardware(facts, plan), _retrieval(facts), _time(facts, plan)]
    against = [question.answer for question in questions if question.speaks == "against"]
    doubts = [question.answer for question in questions if question.speaks == "doubt"]
    if against:
        return Gate("do not tune", "; ".join(against), questions)
    if doubts:
        return Gate("unsure", "; ".join(doubts), questions)
    return Gate("tune", "nothing speaks against it", questions)


def _data(facts: Facts) -> Question:
    rows = "1 row" if facts.rows == 1 else f"{facts.rows:,} rows"
    if facts.rows < 1:
        return Question("data", _DATA, "there is no row", True, GUIDE, "against")
    if facts.kind == "identity":
        return Question("data", _DATA, f"{rows}: enough for a name", True, PEFT, "for")
    if facts.rows < GATE_ROWS:
        answer = f"{rows}: too few to learn from, put them into the prompt as examples"
        return Question("data", _DATA, answer, True, PEFT, "against")
    if facts.rows < WARN_ROWS:
        answer = f"{rows} are few: some hundreds to some thousands usually suffice"
        return Question("data", _DATA, answer, True, GUIDE, "doubt")
    return Question("data", _DATA, rows, True, GUIDE, "for")


def _hardware(facts: Facts, plan: Plan | None) -> Question:
    least = smallest(facts, values_of(plan.settings) if plan else {"precision": _precision(facts)})
    free, when = gigabytes(facts.hardware.budget), facts.hardware.when_there
    if least is None:
        return Question(
            "hardware", _HARDWARE, "pick a model: without one the memory is not known", False, PEFT, "doubt"
        )
    if least.total > facts.hardware.budget:
        answer = f"even the smallest run needs {gigabytes(least.total)} GB and {free} GB are free{when}: take a smaller model"
        return Question("hardware", _HARDWARE, answer, True, PEFT, "against")
    if plan is None or plan.memory is None:
        answer = f"the smallest run needs {gigabytes(least.total)} of {free} GB"
        return Question("hardware", _HARDWARE, answer, True, PEFT, "for")
    needed = f"{gigabytes(plan.memory.total)} of {free} GB"
    if plan.memory.total > facts.hardware.budget:
        answer = f"it does not fit as it is set: it needs {needed}"
        return Question("hardware", _HARDWARE, answer, True, PEFT, "doubt")
    return Question("hardware", _HARDWARE, f"it needs {needed}", True, PEFT, "for")


def _precision(facts: Facts) -> str:
    return "fp32" if facts.hardware.device == "cpu" else "bf16"


def _retrieval(facts: Facts) -> Question:
    goal: Goal | None = facts.goal or ("persona" if facts.kind == "identity" else None)
    if goal == "changing facts":
        answer = "facts that change are better looked up (retrieval): what is tuned in grows old"
        return Question("retrieval", _RETRIEVAL, answer, True, PEFT, "against")
    if goal is not None:
        return Question("retrieval", _RETRIEVAL, _GOALS[goal], True, PEFT, "for")
    if facts.stage in _STAGES:
        return Question("retrieval", _RETRIEVAL, _STAGES[facts.stage], True, PEFT, "for")
    answer = "say what it is for (goal): facts that change are better looked up"
    return Question("retrieval", _RETRIEVAL, answer, False, PEFT, "doubt")


def _time(facts: Facts, plan: Plan | None) -> Question:
    seconds = plan.seconds if plan else None
    if facts.deadline is None:
        if seconds is None:
            return Question("time", _TIME, "say by when (deadline); the time is not known yet", False, PEFT, "for")
        answer = f"it takes {duration(seconds)}"
        if seconds <= _SHORT:
            return Question("time", _TIME, answer, True, PEFT, "for")
        return Question("time", _TIME, f"say by when (deadline): {answer}", False, PEFT, "for")
    left = duration(facts.deadline).removeprefix("about ")
    if seconds is None:
        answer = f"how long it takes is not known, and {left} are left: probe the machine"
        return Question("time", _TIME, answer, False, PEFT, "doubt")
    if seconds > facts.deadline:
        answer = f"it takes {duration(seconds)} and {left} are left: fewer passes, a smaller model, or an API"
        return Question("time", _TIME, answer, True, PEFT, "against")
    if not facts.speeds and seconds * _ROUGH > facts.deadline:
        answer = f"it takes {duration(seconds)} by a rough estimate and {left} are left: probe the machine"
        return Question("time", _TIME, answer, True, PEFT, "doubt")
    return Question("time", _TIME, f"it takes {duration(seconds)}, {left} are left", True, PEFT, "for")
