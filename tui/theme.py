"""The colour roles, dark and light: focus, good, warning, bad, base model, tuned model, faint."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="ftui-dark",
    primary="#7aa2f7",
    secondary="#7aa2f7",
    accent="#7dcfff",
    success="#9ece6a",
    warning="#e0af68",
    error="#f7768e",
    foreground="#c8cdd8",
    background="#14161b",
    surface="#1b1e25",
    panel="#22262f",
    variables={
        "base-model": "#e0af68",
        "tuned-model": "#73daca",
        "faint": "#7b8394",
        "cursor": "#232a3a",
        "footer-background": "#14161b",
    },
)
LIGHT = Theme(
    name="ftui-light",
    primary="#1f4fbf",
    secondary="#1f4fbf",
    accent="#0b6b8a",
    success="#2f6f1e",
    warning="#8a5a00",
    error="#b3123f",
    foreground="#20242c",
    background="#fafafa",
    surface="#f0f1f4",
    panel="#e6e8ee",
    dark=False,
    variables={
        "base-model": "#8a5a00",
        "tuned-model": "#0b6b5f",
        "faint": "#666d7a",
        "cursor": "#dde5f7",
        "footer-background": "#fafafa",
    },
)
