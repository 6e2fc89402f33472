"""Whether the model hub can be reached, and whether there is a token for it. The token itself is never shown."""

from __future__ import annotations

from pathlib import Path

from engine import paths
from engine.doctor.machine import Check, Machine

LIMIT = 3.0  # seconds


def hub(machine: Machine) -> list[Check]:
    environment = machine.environment
    token = _token(machine)
    if environment.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        detail = f"switched off by HF_HUB_OFFLINE; {token}"
        return [Check(name="hub", level="warning", detail=detail, fix="unset it to fetch models")]
    address = environment.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    reason = machine.reach(address, LIMIT)
    if not reason:
        return [Check(name="hub", level="ok", detail=f"{address} answers; {token}")]
    return [
        Check(
            name="hub",
            level="warning",
            detail=f"cannot be reached: {reason} ({address}); {token}",
            fix="offline work goes on with the models that are here; behind a mirror, set HF_ENDPOINT; behind a proxy, HTTPS_PROXY",
        )
    ]


def _token(machine: Machine) -> str:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if machine.environment.get(name):
            return f"a token is set in {name}"
    file = Path(machine.environment.get("HF_TOKEN_PATH") or paths.hub_home() / "token")
    try:
        kept = file.stat()
    except OSError:
        return "no token: gated models cannot be fetched"
    readable = ", which others can read: chmod 600 it" if kept.st_mode & 0o077 else ""
    return f"a token is kept in {file}{readable}"
