"""A checkpoint is whole or it is not there: every kind of damage is noticed."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from engine.runs import checkpoints
from engine.runs.directory import RunDir


def save(run: RunDir, step: int, facts: dict[str, object] | None = None) -> Path:
    staging = checkpoints.stage(run.checkpoints, step)
    (staging / "weights.safetensors").write_bytes(bytes(random.Random(step).randbytes(3000)))
    (staging / "trainer_state.json").write_text("{}")
    (staging / "rng").mkdir()
    (staging / "rng" / "state.pth").write_bytes(b"r" * 50)
    return checkpoints.commit(staging, run.checkpoints / checkpoints.name(step), facts)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "run").mkdir()
    return RunDir(tmp_path / "run")


def test_commit(run: RunDir, loose_umask: None) -> None:
    folder = save(run, 96, {"recipe_sha256": "abc", "versions": {"torch": "2"}})
    assert folder.name == "step-000096" and checkpoints.verify(folder)
    manifest = checkpoints.manifest(folder)
    assert manifest["step"] == 96 and manifest["recipe_sha256"] == "abc" and manifest["versions"] == {"torch": "2"}
    assert manifest["files"]["rng/state.pth"]["size"] == 50 and len(manifest["files"]) == 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in [folder, *folder.rglob("*")])
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000096"]
    assert checkpoints.newest_verified(run) == (96, folder)


def test_every_damage_is_noticed(run: RunDir) -> None:
    folder = save(run, 7, {"data_sha256": "d"})
    copy = run.checkpoints / "step-000007.copy"
    shutil.copytree(folder, copy)
    chance = random.Random(1)
    names = [path.relative_to(copy) for path in copy.rglob("*") if path.is_file()]
    for number in range(500):
        name = names[number % len(names)]
        path = folder / name
        content = bytearray(path.read_bytes())
        kind = chance.choice(["flip", "cut", "longer", "remove", "add", "swap"])
        match kind:
            case "flip":
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
                path.write_bytes(content)
            case "cut":
                path.write_bytes(content[: chance.randrange(len(content))])
            case "longer":
                path.write_bytes(content + b" ")
            case "remove":
                path.unlink()
            case "add":
                (folder / "rng" / "another").write_bytes(b"")
            case "swap":
                path.unlink()
                path.symlink_to(copy / name)
        if kind == "swap" and name.name == checkpoints.MANIFEST:
            pass  # the same bytes, through a link: nothing is damaged
        else:
            assert not checkpoints.verify(folder), (kind, name)
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
        assert checkpoints.verify(folder)
    print("500 damages, each noticed")


def test_a_checkpoint_under_another_number_is_not_believed(run: RunDir) -> None:
    folder = save(run, 7)
    moved = folder.rename(run.checkpoints / "step-000008")
    assert not checkpoints.verify(moved) and checkpoints.newest_verified(run) is None


def test_newest_whole_one_is_taken(run: RunDir) -> None:
    for step in (5, 10, 15):
        save(run, step)
    (run.checkpoints / "step-000015" / "rng" / "state.pth").write_bytes(b"R" * 50)
    (run.checkpoints / "step-000010" / "trainer_state.json").unlink()
    (run.checkpoints / "step-9").mkdir()
    (run.checkpoints / ".staging-step-000020").mkdir()
    (run.checkpoints / "step-000030").symlink_to(run.checkpoints / "step-000005")
    found = checkpoints.newest_verified(run)
    assert found is not None and found[0] == 5


def test_a_save_cut_short_leaves_nothing_that_counts(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    save(run, 5)
    calls = 0
    real = os.fsync

    def failing(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == limit:
            raise OSError(28, "No space left on device")
        real(descriptor)

    for step in range(1, 7):
        limit, calls = step, 0
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing)
            with pytest.raises(OSError):
                save(run, 6)
        assert checkpoints.newest_verified(run) == (5, run.checkpoints / "step-000005")
        assert [step for step, _ in checkpoints.committed(run)] == [5]
    save(run, 6)
    assert checkpoints.newest_verified(run) == (6, run.checkpoints / "step-000006")


def test_a_checkpoint_is_replaced_by_the_same_step(run: RunDir) -> None:
    folder = save(run, 5)
    (folder / "trainer_state.json").write_text("damaged")
    save(run, 5)
    assert checkpoints.verify(folder)


def test_retire(run: RunDir) -> None:
    for step in (5, 10, 15, 20):
        save(run, step)
    (run.checkpoints / ".staging-step-000025").mkdir()
    (run.checkpoints / ".retired-step-000001").mkdir()
    assert sorted(checkpoints.retire(run, keep=2, best=5)) == [10]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000005", "step-000015", "step-000020"]
    assert checkpoints.retire(run) == [5]


def test_links_are_not_committed(run: RunDir, tmp_path: Path) -> None:
    staging = checkpoints.stage(run.checkpoints, 1)
    (staging / "weights").symlink_to("/etc/hostname")
    with pytest.raises(ValueError):
        checkpoints.commit(staging, run.checkpoints / "step-000001")
    with pytest.raises(ValueError):
        checkpoints.commit(staging, run.checkpoints / "other")


def test_manifest_is_plain_json(run: RunDir) -> None:
    folder = save(run, 3)
    assert set(json.loads((folder / "manifest.json").read_text())) == {"step", "files", "manifest_sha256"}
