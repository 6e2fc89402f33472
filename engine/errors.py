"""The one error a person ever sees: what is wrong, where, what to do next."""

from __future__ import annotations

from enum import IntEnum

from engine.secrets import redacted


class Exit(IntEnum):
    """Exit codes of every verb. Documented in docs/exit-codes.md; never renumber one."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    DATA_SYNTAX = 10  # a file that is not what its format says (cut off, stray comma)
    DATA_ROW = 11  # a row that cannot be trained on (no answer, wrong type)
    DATA_ENCODING = 12  # not UTF-8
    DATA_SHAPE = 13  # columns that match no known shape
    DATA_MISSING = 14  # no such file, or an empty one
    MODEL_MISSING = 20
    MODEL_NO_WEIGHTS = 21
    MODEL_UNSUPPORTED = 22
    MODEL_CODE = 23  # it runs code of its own, and nobody allowed that
    DISK_FULL = 30
    PERMISSION = 31
    PRESET_UNKNOWN = 40
    RECIPE_INVALID = 41
    PLAN_REFUSED = 42  # the plan cannot work on this machine or data; says why
    RUN_UNKNOWN = 50
    RUN_STATE = 51  # the run is not in a state that allows this
    RUN_FAILED = 52
    EXPORT_FAILED = 53
    NETWORK = 60
    INTERRUPTED = 130


class FtuiError(Exception):
    """An error with a cause, a place and a next step: at most three lines, no traceback.

    cause      what is wrong, one sentence
    where      file, line, row, field or run it concerns; may be empty
    next_step  what the person can do about it; may be empty
    """

    def __init__(self, code: Exit, cause: str, where: str = "", next_step: str = "") -> None:
        # A library's words, and what a person typed, may hold a token: none gets further than this.
        self.code = code
        self.cause, self.where, self.next_step = redacted(cause), redacted(where), redacted(next_step)
        super().__init__(self.cause)

    def lines(self) -> list[str]:
        """The one to three lines shown to the person (not yet passed through `text.safe`)."""
        return [line for line in (self.cause, self.where, self.next_step) if line]

    def as_dict(self) -> dict[str, object]:
        return {
            "code": int(self.code),
            "error": self.code.name.lower(),
            "cause": self.cause,
            "where": self.where,
            "next_step": self.next_step,
        }
