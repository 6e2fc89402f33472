"""A model with code of its own: only the whole word lets it run, and the command line says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from engine.hardware import Hardware
from tests.tui.stage import seen, until
from tui.app import FtuiApp


async def test_code_of_a_model_is_asked_for(machine: Hardware, tiny_model: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(tiny_model, own)
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "modeling_own.py").write_text("")
    app = FtuiApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "hub id, folder or .gguf file" in seen(pilot))
        await pilot.press("slash", *str(own), "enter")
        await until(pilot, lambda: "run its code?" in seen(pilot) and "modeling_own.py" in seen(pilot))
        await pilot.press(*"y", "enter")
        await until(pilot, lambda: "it is not run" in seen(pilot))
        assert app.wizard.choice is None or not app.wizard.choice.trust_remote_code
        await pilot.press("backspace", *"yes", "enter")
        await until(pilot, lambda: app.wizard.choice is not None and app.wizard.choice.trust_remote_code)
        from tui.wizard import command

        assert f"--model {own} --trust-remote-code" in command(app.wizard.choice)
