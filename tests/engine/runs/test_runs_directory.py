"""Run folders: private, contained, found by name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine import paths
from engine.errors import Exit, FtuiError
from engine.runs import directory
from engine.runs.directory import RunDir
from tests.engine.runs.conftest import make_recipe


def create(name: str) -> RunDir:
    return directory.create(make_recipe(name), {"advice": [{"field": "rank", "value": 8}]})


def test_create(loose_umask: None) -> None:
    run = create("Congyu’s run / ../x")
    assert run.path.parent == paths.runs_dir() and run.path.is_dir()
    assert run.recipe() == make_recipe("Congyu’s run / ../x") and run.result is None
    for path in [run.path, *run.path.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    recipe = run.recipe()
    recipe.settings.epochs = 99
    assert run.recipe().settings.epochs == 2  # a copy each time


def test_same_name_again_and_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "2026-11-22-1430")
    first, second, third = create("a"), create("a"), create("b")
    assert [run.name for run in (first, second, third)] == [
        "2026-11-22-1430-a",
        "2026-11-22-1430-a-2",
        "2026-11-22-1430-b",
    ]
    assert directory.all_runs() == [third, second, first]
    assert directory.find("a") == second and directory.find("2026-11-22-1430-a") == first
    assert directory.handle(second) == "a" and directory.handle(first) == first.name


def test_find() -> None:
    with pytest.raises(FtuiError, match="no runs yet"):
        directory.find("x")
    support, legal, legal2 = create("support-bot"), create("legal v2"), create("legal-v3")
    named_as_a_second = create("legal-v3-2")
    assert directory.find("support") == support  # a prefix of one run only
    assert directory.find("legal v2") == legal and directory.find("legal-v3") == legal2
    assert directory.find("legal-v3-2") == named_as_a_second
    with pytest.raises(FtuiError) as caught:
        directory.find("lega")
    assert "several" in caught.value.cause and caught.value.code == Exit.RUN_UNKNOWN
    with pytest.raises(FtuiError) as caught:
        directory.find("suport-bot")
    assert caught.value.next_step == "did you mean support-bot"
    for name in ("", "..", "/", "../runs", "*"):
        with pytest.raises(FtuiError):
            directory.find(name)


def test_links_and_other_folders_are_not_runs(tmp_path: Path) -> None:
    run = create("real")
    elsewhere = tmp_path / "elsewhere"
    run.path.rename(elsewhere)
    (paths.runs_dir() / run.name).symlink_to(elsewhere)
    (paths.runs_dir() / "2026-11-22-1430-empty").mkdir()
    (paths.runs_dir() / "wandb").mkdir()
    assert directory.all_runs() == []
    with pytest.raises(FtuiError):
        directory.find("real")


def test_damaged_recipe_is_named() -> None:
    run = create("a")
    run.recipe_path.write_text("name: [")
    with pytest.raises(FtuiError) as caught:
        run.recipe()
    assert caught.value.code == Exit.RECIPE_INVALID and str(run.recipe_path) in caught.value.where
    assert directory.title(run) == "a"


def test_unwritable_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(FtuiError) as caught:
        create("a")
    assert caught.value.code == Exit.PERMISSION


def test_result_counts_only_when_complete() -> None:
    run = create("a")
    run.adapter.mkdir()
    (run.adapter / "adapter_config.json").write_text("{}")
    assert run.result is None
    (run.adapter / "adapter_model.safetensors").write_bytes(b"")
    assert run.result == run.adapter
