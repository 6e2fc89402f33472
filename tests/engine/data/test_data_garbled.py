"""Text that was read in the wrong encoding is found and mended; text that only looks odd is left as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.findings.encoding import mend
from tests.engine.data.finding_rows import look, pair


def garble(text: str) -> str:
    """What a program shows that reads UTF-8 as Windows-1252; bytes that this does not know become Latin-1."""
    shown = (bytes([byte]) for byte in text.encode())
    return "".join(one.decode("cp1252", "replace").replace("\ufffd", one.decode("latin-1")) for one in shown)


@pytest.mark.parametrize(
    "text",
    [
        "a café in Zürich",
        "It’s “fine” – really…",
        "20 °C, 5 €, ™",
        "你好，世界",
        "Привет, мир",
        "a smile 😀 here",
        "señor, où est l'île?",
        "à la carte",
    ],
)
def test_what_was_garbled_is_mended(text: str) -> None:
    assert garble(text) != text and mend(garble(text)) == text
    assert mend(mend(garble(text))) == text


def test_what_was_garbled_twice_is_mended() -> None:
    assert mend(garble(garble("café, it’s"))) == "café, it’s"


@pytest.mark.parametrize(
    "text",
    [
        "São Paulo, SÃO PAULO, “IRMÔ, MAÇÃ",
        "un café”— dit-il, «été»",
        "Il a dit « Âge » et « âge »",
        "På øen, ±5 µm, ½ l, § 3, ©",
        "Ævar Åsa Øystein",
        "naïve résumé, Ñandú, año",
        "Việt Nam, Âu Cơ",
        "你好，世界。Привет. こんにちは 안녕하세요",
        "x² + y² ≤ z², ∀ε>0",
    ],
)
def test_what_is_right_is_left_as_it_is(text: str) -> None:
    assert mend(text) == text


@given(st.text(st.characters(exclude_characters="ÂÃÐÑâãäåæçèéïð", exclude_categories=["Cs"])))
def test_text_without_the_marks_of_it_is_left_as_it_is(text: str) -> None:
    assert mend(text) == text


def test_rows_in_the_wrong_encoding(tmp_path: Path) -> None:
    rows = [
        pair("a", "b"),
        pair("c", f"in the {garble('café')} there"),
        pair("d", "a café"),
        pair(garble("它很好"), "x"),
    ]
    finding = look(tmp_path, rows)["encoding"]
    assert finding.level == "problem" and list(finding.rows) == [2, 4] and finding.action == "mend-encoding"
    assert finding.example == "row 2: cafÃ© was café"


def test_rows_that_lost_characters(tmp_path: Path) -> None:
    rows = [pair("a", "b"), pair("c", "my mother\ufffds house")]
    finding = look(tmp_path, rows)["lost-characters"]
    assert finding.level == "problem" and list(finding.rows) == [2] and "mother\ufffds" in finding.example
