"""Words that a run makes tokens of its own: which can be one, and how every room adds them to the same tokenizer.

They are ordinary tokens, not control tokens: a person who reads an answer wants to see them, and a row's own text may hold
them (LLaMA-Factory keeps both kinds, `add_tokens` and `add_special_tokens`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from engine.errors import Exit, FtuiError
from engine.text import safe

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST = 100  # characters of a word; what is longer is a text


def wrong(words: Iterable[str]) -> Iterator[str]:
    """Why some of `words` cannot be a token, each with its way out."""
    for word in words:
        if not word:
            yield "added_tokens holds a word without a letter: leave it out"
        elif word != word.strip() or not word.isprintable():
            yield (
                f"added_tokens holds {safe(repr(word))}: white space around a word and characters that cannot be seen are "
                "read in other ways by other programs, leave them out"
            )
        elif len(word) > LONGEST:
            yield f"added_tokens holds a text of {len(word):,} characters: a token has {LONGEST} at most, shorten it"


def add(backend: Tokenizer, words: Iterable[str]) -> list[int]:
    """Make tokens of `words`, in their order, save those that are one already; the ids of the new ones. None where one of
    them is `wrong`, which whoever asks for them is told.

    Raises FtuiError(RECIPE_INVALID) for a word that the vocabulary has as a name of something else.
    """
    words = list(dict.fromkeys(words))
    if any(wrong(words)):
        return []
    new = [word for word in words if not known(backend, word)]
    for word in new:
        if backend.token_to_id(word) is not None:
            raise FtuiError(
                Exit.RECIPE_INVALID,
                f"the vocabulary writes {safe(word)} for a piece of text that is another: it cannot be a token of its own",
                next_step="take another word for it in added_tokens, as in <word>",
            )
    backend.add_tokens([token(word) for word in new])
    return [int(number) for word in new if (number := backend.token_to_id(word)) is not None]


def known(backend: Tokenizer, word: str) -> bool:
    """Whether `word` is a token of `backend` as it stands."""
    ids = backend.encode(word, add_special_tokens=False).ids
    return len(ids) == 1 and backend.decode(ids, skip_special_tokens=False).strip() == word


def token(word: str) -> Any:
    """Found wherever `word` stands, letter for letter."""
    from tokenizers import AddedToken

    return AddedToken(word, normalized=False, special=False)
