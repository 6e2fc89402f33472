"""What to set, and why: facts in, a plan out. Pure functions, no files, no network, nothing heavy."""

from engine.advice.epoch import optimizer_steps
from engine.advice.kinds import Advice, Alternative, Facts, Plan
from engine.advice.plan import advise

__all__ = ["Advice", "Alternative", "Facts", "Plan", "advise", "optimizer_steps"]
