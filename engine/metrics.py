"""What an answer is worth beside its reference: ROUGE, BLEU, perplexity. Imported without torch.

ROUGE is that of the package rouge_score (F1, Porter stemmer, as in the papers on summaries), BLEU that of sacrebleu. What both
need for writing without spaces is a tokenisation: rouge_score by itself throws away every character but a-z and 0-9,
so that each Chinese answer would score 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from msgspec import Struct

ROUGE = ("rouge1", "rouge2", "rougeL")
RESAMPLES = 1000

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# Kana, Thai, Lao, Burmese, Khmer: written without spaces, too.
_UNSPACED = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff"
_HAS_HAN = re.compile(f"[{_HAN}]")
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}]")
# A token is a character of writing without spaces, else a run of letters and digits.
_TOKEN = re.compile(rf"[{_HAN}{_UNSPACED}]|[^\W_{_HAN}{_UNSPACED}]+")

BleuTokenizer = Literal["13a", "zh", "char"]


class Bleu(Struct, frozen=True):
    """`score` from 0 to 100; `signature` is what sacrebleu gives to be quoted with it."""

    score: float
    signature: str


def words(text: str) -> list[str]:
    """The tokens that ROUGE compares: of English exactly those of rouge_score with its stemmer, of Chinese characters.

    >>> words("Dogs running 很好。")
    ['dog', 'run', '很', '好']
    """
    found: list[str] = []
    for token in _TOKEN.findall(text.lower()):
        found += _english().tokenize(token) if token.isascii() else [token]
    return found


def rouge(reference: str, answer: str) -> dict[str, float]:
    """F1 of the words (rouge1), pairs of words (rouge2) and the longest common subsequence (rougeL), each from 0 to 1."""
    scored = _scorer().score(reference, answer)
    return {name: float(scored[name].fmeasure) for name in ROUGE}


def bleu_tokenizer(references: Sequence[str]) -> BleuTokenizer:
    """How sacrebleu should cut these: "char" where most are written without spaces and are not Chinese (Japanese, Thai),
    "zh" where there is Chinese (it cuts Chinese into characters, and everything else as 13a), else its own "13a"."""
    unspaced = sum(_HAS_UNSPACED.search(text) is not None for text in references)
    if unspaced * 2 > len(references):
        return "char"
    return "zh" if any(_HAS_HAN.search(text) for text in references) else "13a"


def bleu(references: Sequence[str], answers: Sequence[str], tokenizer: BleuTokenizer) -> Bleu:
    """BLEU-4 of all answers together, one reference each."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize=tokenizer)
    score = metric.corpus_score(list(answers), [list(references)]).score
    return Bleu(float(score), str(metric.get_signature()))


def perplexity(loss: float) -> float:
    """exp(loss), for a mean loss per token in nats; infinite where that is beyond a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def interval(
    differences: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0
) -> tuple[float, float]:
    """The middle 95 % of the mean difference, when the rows are drawn again and again with replacement (paired bootstrap,
    Koehn 2004). Where 0 lies outside, the rows tell the two models apart.

    weights  what each row counts, as its tokens do in a loss; all alike without
    """
    import numpy as np

    values, counts = np.asarray(differences, float), np.asarray(weights or [1.0] * len(differences), float)
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    means = (values * counts)[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


class _Words:
    """`words` as rouge_score wants a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def _english() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), tokenizer=_Words())
