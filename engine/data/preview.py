"""The exact text of an example, in pieces that are trained or are not, or token by token.

Foreign text: pass it through `engine.text.safe` to show it. Each function raises FtuiError(MODEL_UNSUPPORTED) if the chat
template refuses the example.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.convert import Example
from engine.data.rendering import Rendered
from engine.data.tokenizer import AnyTokenizer, Tokenizer

Piece = tuple[str, bool]  # text, trained?
Token = tuple[str, bool, bool]  # its own text, trained?, control token?


def pieces(example: Example, tokenizer: AnyTokenizer) -> list[Piece]:
    """The text in order, control tokens written out; of a preference pair the chosen side."""
    return _pieces(tokenizer.render(example))


def sides(example: Example, tokenizer: AnyTokenizer) -> list[tuple[str, list[Piece]]]:
    """(title, pieces): "chosen" and "rejected" of a preference pair, else one side without a title."""
    return [(title, _pieces(rendered)) for title, rendered in _rendered(example, tokenizer)]


def tokens(example: Example, tokenizer: AnyTokenizer) -> list[Token]:
    """Each token's own text; bytes that are no whole character as in "\\xe4". Of a preference pair the chosen side.

    An estimate knows no tokens, so its pieces stay whole.
    """
    return token_sides(example, tokenizer)[0][1]


def token_sides(example: Example, tokenizer: AnyTokenizer) -> list[tuple[str, list[Token]]]:
    """(title, tokens), as `sides` and `tokens` have them."""
    return [
        (
            title,
            tokenizer.split(rendered)
            if isinstance(tokenizer, Tokenizer)
            else [(text, trained, False) for text, trained in _pieces(rendered)],
        )
        for title, rendered in _rendered(example, tokenizer)
    ]


def _rendered(example: Example, tokenizer: AnyTokenizer) -> Sequence[tuple[str, Rendered]]:
    if example.chosen is None:
        return [("", tokenizer.render(example))]
    chosen, rejected = tokenizer.render_pair(example)
    return [("chosen", chosen), ("rejected", rejected)]


def _pieces(rendered: Rendered) -> list[Piece]:
    found: list[Piece] = []
    at = 0
    for start, stop in rendered.trained:
        found += [(rendered.text[at:start], False), (rendered.text[start:stop], True)]
        at = stop
    found.append((rendered.text[at:], False))
    return [(text, trained) for text, trained in found if text]
