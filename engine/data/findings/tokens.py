"""What only shows once tokens are counted: rows that are cut, that never end, that the template changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.data.findings.kinds import Finding, Marked

if TYPE_CHECKING:
    from engine.data.lengths import Lengths


def find(lengths: Lengths, cutoff: int | None, context: int | None, divided: bool = False) -> list[Finding]:
    """Those about cutting need a `cutoff`, those about the model's own limit its `context`, both in tokens.

    divided  rows are texts, which are divided where others are cut
    """
    found = [
        *Marked(lengths.endless).finding(
            "endless",
            "problem",
            ("ends", "end"),
            "without an end token: the model would not learn to stop",
            "choose a model whose template ends its answers",
        ),
        *Marked(lengths.tools_unseen).finding(
            "tools",
            "problem",
            ("has", "have"),
            "tools that the chat template does not show to the model",
            "choose a model made for tools, or put what the tools do into the system prompt",
        ),
        *Marked(lengths.rewritten).finding(
            "rewritten",
            "note",
            ("is trained on its", "are trained on their"),
            "last answer only: the template rewrites the others",
            "to train each answer, make each the last of a row of its own",
        ),
        *Marked(lengths.diverging).finding(
            "prompt-differs",
            "note",
            ("has a prompt", "have prompts"),
            "that the chat template writes otherwise when it asks",
            "compare the preview with the prompt in Chat; a model without a train of thought avoids it",
        ),
    ]
    if divided and cutoff is not None:
        what = f"divided into parts of {cutoff:,} tokens: nothing of them is lost"
        found += _over(lengths, lengths.total, cutoff).finding("divided", "note", ("is", "are"), what)
    if context is not None and not divided:
        what = f"longer than the {context:,} tokens that the model can read"
        fix = "leave them out, or choose a model with more context; else they are cut"
        beyond = _over(lengths, lengths.total, context)
        found += beyond.finding("beyond-context", "warning", ("is", "are"), what, fix, "drop-too-long")
    if cutoff is not None and not divided:
        what = f"end token when cut at {cutoff:,} tokens"
        fix = f"{lengths.max:,} tokens hold every row whole (--length {lengths.max}); or leave these rows out"
        lost = _over(lengths, lengths.ends, cutoff)
        found += lost.finding("cut", "problem", ("loses its", "lose their"), what, fix, "drop-too-long")
    if len(lengths.rows) < lengths.of_rows:
        for finding in found:
            finding.sampled = f"among {len(lengths.rows):,} of {lengths.of_rows:,} rows"
    return found


def _over(lengths: Lengths, tokens: Sequence[int], limit: int) -> Marked:
    """The rows of which `tokens` is more than `limit`."""
    import numpy as np

    return Marked(np.asarray(lengths.rows)[np.asarray(tokens) > limit].tolist())
