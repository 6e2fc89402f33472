"""Keys and persons' data are found and masked, whole keys are never shown, and what only looks like one is left alone.

The keys here are made up when the test runs, so that no scanner of repositories takes them for real.
"""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.findings.private import mask_keys, mask_personal
from tests.engine.data.finding_rows import look, pair


def drawn(count: int, alphabet: str = string.ascii_letters + string.digits, seed: int = 1) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=count))


UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
KEYS = [
    "sk-" + drawn(48),
    "sk-proj-" + drawn(60) + "_" + drawn(40, seed=2),
    "sk-ant-api03-" + drawn(80),
    "sk-" + drawn(32, HEX),
    "hf_" + drawn(34, string.ascii_letters),
    "ghp_" + drawn(36),
    "github_pat_" + drawn(22) + "_" + drawn(59, seed=3),
    "AKIA" + drawn(16, UPPER),
    "AIza" + drawn(35),
    "xoxb-" + drawn(12, string.digits) + "-" + drawn(24),
    "eyJ" + drawn(30) + ".eyJ" + drawn(60, seed=4) + "." + drawn(43, seed=5),
]
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join(drawn(64, seed=at) for at in range(6))
    + "\n-----END RSA PRIVATE KEY-----"
)
NO_KEYS = [
    "sk-your-api-key-goes-right-here-please",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "hf_token_of_the_hub_goes_here_now",
    "the risk-management-and-portfolio-2023 page",
    "https://example.org/articles/sk-how-to-learn-scikit-in-2023-and-beyond",
    drawn(64, HEX),
    "data:image/png;base64," + drawn(400),
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "123e4567-e89b-12d3-a456-426614174000",
    "AKIAIOSFODNN7 is not whole",
    "ghp_short",
]


@pytest.mark.parametrize("key", [*KEYS, PEM])
def test_a_key_is_found_masked_in_the_example_and_taken_out(tmp_path: Path, key: str) -> None:
    finding = look(tmp_path, [pair("a", "b"), pair("login", f'use "{key}" for it'), pair("c", "d")])["secrets"]
    assert list(finding.rows) == [2] and finding.level == "warning"
    # At most the prefix and the last four characters are shown.
    shown = finding.example.removeprefix("row 2: ")
    assert len(shown.replace("…", "")) <= 24 and key not in finding.example and key[-20:-4] not in finding.example
    masked = mask_keys(f"use {key} for it, twice: {key}")
    assert masked == "use [key removed] for it, twice: [key removed]" and mask_keys(masked) == masked


@pytest.mark.parametrize("text", NO_KEYS)
def test_what_is_no_key(tmp_path: Path, text: str) -> None:
    assert "secrets" not in look(tmp_path, [pair("a", text)]) and mask_keys(text) == text


PERSONAL = [
    ("write to jane.doe@fastmail.net today", "j…@fastmail.net", "[e-mail address removed]"),
    ("call 312-867-5309 now", "a telephone number, …5309", "[telephone number removed]"),
    ("call (312) 867-5309.", "a telephone number, …5309", "[telephone number removed]"),
    ("+44 20 7946 0018", "a telephone number, …0018", "[telephone number removed]"),
    ("+33 1 70 18 99 00", "a telephone number, …9 00", "[telephone number removed]"),
    ("电话：13812345678。", "a telephone number, …5678", "[telephone number removed]"),
    ("138-1234-5678", "a telephone number, …5678", "[telephone number removed]"),
    ("my number is 0181 945 8719, call me", "a telephone number, …8719", "[telephone number removed]"),
    ("card 4539 5787 6362 1486 until May", "a card number, …1486", "[card number removed]"),
    ("card 4539578763621486", "a card number, …1486", "[card number removed]"),
]


@pytest.mark.parametrize(("text", "shown", "mask"), PERSONAL)
def test_data_of_persons(tmp_path: Path, text: str, shown: str, mask: str) -> None:
    finding = look(tmp_path, [pair("a", "b"), pair("c", f"So: {text}")])["personal-data"]
    assert list(finding.rows) == [2] and finding.example == f"row 2: {shown}"
    masked = mask_personal(f"So: {text}")
    assert mask in masked and mask_personal(masked) == masked
    assert "personal-data" not in look(tmp_path, [pair("c", masked)])


@pytest.mark.parametrize(
    "text",
    [
        "write to you@example.com or boss@company.com or name@domain.org",
        "git@github.com:owner/name.git",
        "logo@2x.png and package@1.2.3 and @decorator and user@localhost",
        "the sum 355909190063 - 746 = 355909189317",
        "472547338\n+960397912423686\n= 960398384971024",
        "13812345678 + 1 = 13812345679",
        "2019-2020, 1,000-2,000, 0.4539578763621486",
        "call 555-123-4567 or (312) 555-0123 or 123-456-7890",
        "doi 10.1111/1365-2664.12646, ISBN 978-3-16-148410-0",
        "card 4111 1111 1111 1111 for tests",
        "card 4539 5787 6362 1487 with a wrong checksum",
        "1679433381 seconds, id 550e8400e29b41d4a716446655440000",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "850-894mhz 925-960mhz 1805-1990mhz",
        "192.168.100.200 and 2024.01.15 10:20:30",
    ],
)
def test_what_is_no_data_of_a_person(tmp_path: Path, text: str) -> None:
    assert "personal-data" not in look(tmp_path, [pair("a", text)]) and mask_personal(text) == text


def test_kinds_of_data_are_counted_by_row(tmp_path: Path) -> None:
    rows = [pair("jane.doe@fastmail.net", "call 312-867-5309"), pair("a", "bob@fastmail.net and ann@fastmail.net")]
    finding = look(tmp_path, rows)["personal-data"]
    assert finding.message == "2 rows hold data of persons: e-mail 2, telephone 1"


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=80), st.text(max_size=80), st.sampled_from(KEYS), st.text(max_size=3))
def test_no_finding_shows_a_key(before: str, after: str, key: str, between: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            found = look(Path(folder), [pair(f"q {between}", f"{before} {key} {after}")])
        except UnicodeEncodeError:
            return
        assert all(key not in finding.example + finding.message for finding in found.values())
