"""The exact text of an example, in pieces that are trained or are not."""

from __future__ import annotations

from engine.data.convert import Example
from engine.data.tokenizer import AnyTokenizer


def pieces(example: Example, tokenizer: AnyTokenizer) -> list[tuple[str, bool]]:
    """(text, trained?) in order, special tokens written out. Foreign text: pass it through `engine.text.safe` to show it.

    Raises FtuiError(MODEL_UNSUPPORTED) if the chat template refuses the example.
    """
    rendered = tokenizer.render(example)
    found: list[tuple[str, bool]] = []
    at = 0
    for start, stop in rendered.trained:
        found += [(rendered.text[at:start], False), (rendered.text[start:stop], True)]
        at = stop
    found.append((rendered.text[at:], False))
    return [(text, trained) for text, trained in found if text]
