"""Each metric against values worked out by hand, in English and in Chinese."""

from __future__ import annotations

import math

import pytest

from engine import metrics
from tests.engine.test_boundaries import HEAVY, loaded


def test_rouge_of_an_english_answer() -> None:
    # 5 words against 4, 3 of them shared: precision 3/4, recall 3/5. Pairs: "the cat" of 4 and 3. In order: the, cat, mat.
    found = metrics.rouge("The cat sat on mat.", "the cat and mat")
    assert found["rouge1"] == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert found["rouge2"] == pytest.approx(2 * (1 / 3) * (1 / 4) / (7 / 12))
    assert found["rougeL"] == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    # The same words in another order: rougeL alone sees that. Longest in order: 1 of 2.
    turned = metrics.rouge("yes no", "no yes")
    assert (turned["rouge1"], turned["rouge2"], turned["rougeL"]) == (1.0, 0.0, 0.5)
    assert metrics.rouge("a b", "") == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}


def test_rouge_of_a_chinese_answer_counts_characters() -> None:
    # 我是丛雨 (4) and 我叫丛雨 (4): 3 characters shared; of 3 pairs each only 丛雨; in order 我丛雨.
    found = metrics.rouge("我是丛雨。", "我叫丛雨！")
    assert found == pytest.approx({"rouge1": 0.75, "rouge2": 1 / 3, "rougeL": 0.75})
    assert metrics.words("我用 Python3 写 naïve_代码") == ["我", "用", "python3", "写", "naïve", "代", "码"]


def test_english_words_are_those_of_rouge_score_itself() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    own = RougeScorer(list(metrics.ROUGE), use_stemmer=True)
    pairs = [
        ("#Person1# asks Ms. Dawson to take a dictation.", "Ms. Dawson takes dictations for #Person1#'s memo."),
        ("He'd eaten 3,000 well-known_apples", "eating 3,000 apples he knows well"),
    ]
    for reference, answer in pairs:
        theirs = {name: score.fmeasure for name, score in own.score(reference, answer).items()}
        assert metrics.rouge(reference, answer) == theirs


def test_bleu_by_hand() -> None:
    # Of "the cat sat on a mat": 5 of 6 words, 3 of 5 pairs, 2 of 4 threes, 1 of 3 fours; as long as the reference.
    expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    found = metrics.bleu(["the cat sat on the mat"], ["the cat sat on a mat"], "13a")
    assert found.score == pytest.approx(expected)
    assert "tok:13a" in found.signature and "version:" in found.signature
    # An answer of 4 words against 6, all right: only the penalty for being short, exp(1 - 6/4).
    assert metrics.bleu(["a b c d e f"], ["a b c d"], "13a").score == pytest.approx(100 * math.exp(-0.5))


def test_bleu_of_chinese_needs_its_tokenisation() -> None:
    reference, answer = ["今天天气很好啊"], ["今天天气真好啊"]
    # 今天天气 shared, then one differs, then 好啊: 6 of 7 characters, 4 of 6 pairs, 2 of 5 threes, 1 of 4 fours.
    expected = 100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25
    assert metrics.bleu_tokenizer(reference) == "zh"
    assert metrics.bleu(reference, answer, "zh").score == pytest.approx(expected)
    assert metrics.bleu(reference, answer, "13a").score < 1  # the whole sentence would be one word


def test_the_tokenisation_follows_the_references() -> None:
    assert metrics.bleu_tokenizer(["Paris.", "naïve"]) == "13a"
    assert metrics.bleu_tokenizer(["Paris.", "巴黎", "London"]) == "zh"
    assert metrics.bleu_tokenizer(["東京です", "はい"]) == "char"
    assert metrics.bleu_tokenizer(["巴黎", "ですね", "伦敦"]) == "zh"


def test_perplexity_is_e_to_the_loss() -> None:
    assert metrics.perplexity(0.0) == 1.0
    assert metrics.perplexity(math.log(7)) == pytest.approx(7)
    assert metrics.perplexity(1e4) == math.inf


def test_the_interval_of_a_difference() -> None:
    assert metrics.interval([0.5] * 9) == (0.5, 0.5)
    low, high = metrics.interval([1.0, 0.0] * 50)
    # The mean of 100 such rows is 0.5, its standard error sqrt(0.25 / 100) = 0.05, and 1.96 of those are 0.098.
    assert low == pytest.approx(0.402, abs=0.02) and high == pytest.approx(0.598, abs=0.02)
    low, high = metrics.interval([1.0, -1.0] * 50)
    assert low < 0 < high


def test_metrics_load_no_torch() -> None:
    got = loaded("from engine import metrics\nmetrics.rouge('a', 'a')\nmetrics.bleu(['a'], ['a'], '13a')")
    assert "sacrebleu" in got and not got & HEAVY
