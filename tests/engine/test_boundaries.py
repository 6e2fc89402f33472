"""Who may load what: looked at in real processes, and by the import contracts of pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes"}


def loaded(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after running `code`."""
    script = f"{code}\nimport sys\nprint('\\nLOADED', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    return set(done.stdout.rpartition("LOADED")[2].split())


def modules_below(*packages: str) -> list[str]:
    found = []
    for package in packages:
        folder = ROOT / package
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
        for file in files:
            parts = file.relative_to(ROOT).with_suffix("").parts
            if parts[-1] != "__main__":
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def test_help_loads_neither_textual_nor_torch() -> None:
    got = loaded(
        "from tui.__main__ import main\nimport sys\nsys.argv = ['ftui', '--help']\ntry: main()\nexcept SystemExit: pass"
    )
    assert "engine" in got
    assert not got & {*HEAVY, "textual", "numpy", "tokenizers", "huggingface_hub"}


@pytest.mark.parametrize("verb", ["train", "data", "chat", "demo"])
def test_help_of_a_verb_is_as_light(verb: str) -> None:
    got = loaded(f"from engine.cli import main\nassert main(['{verb}', '--help']) == 0")
    assert not got & {*HEAVY, "textual", "numpy", "tokenizers", "huggingface_hub"}


def test_every_module_of_the_screens_loads_without_the_heavy_libraries() -> None:
    names = modules_below("tui")
    assert "tui.app" in names
    assert not loaded("\n".join(f"import {name}" for name in names)) & HEAVY


def test_the_light_rooms_load_neither_the_heavy_libraries_nor_textual() -> None:
    rooms = ("cli", "data", "models", "advice", "runs", "recipe", "hardware", "presets", "draft", "doctor")
    names = modules_below(*(f"engine/{room}" for room in rooms))
    assert {"engine.draft", "engine.cli.train", "engine.runs.control"} <= set(names)
    assert not loaded("\n".join(f"import {name}" for name in names)) & {*HEAVY, "textual"}


def test_import_contracts_hold() -> None:
    lint = shutil.which(
        "lint-imports", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    if lint is None:
        pytest.skip("import-linter is not installed (it comes with the extra `dev`)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([lint], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
