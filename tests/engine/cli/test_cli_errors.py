"""Every failure: at most three lines that say what and where, its own exit code, and never a traceback."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import paths
from engine.cli import app
from engine.errors import Exit, FtuiError
from tests.engine.cli.conftest import Said

Ftui = Callable[..., Said]


def refused(said: Said, code: Exit, *words: str) -> None:
    assert said.code == code, said
    lines = said.err.strip().splitlines()
    assert 1 <= len(lines) <= 3, said.err
    assert "Traceback" not in said.err + said.out
    for word in words:
        assert word in said.err


def test_a_file_that_was_cut_in_the_middle_names_the_line(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    text = rows.read_text(encoding="utf-8")
    rows.write_text(text[: len(text) - 20], encoding="utf-8")
    refused(ftui("plan", "--data", rows, "--model", tiny_model), Exit.DATA_SYNTAX, "12", rows.name)


def test_a_row_without_an_answer_is_named_or_left_out(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"instruction": "And then?", "input": "", "output": ""}) + "\n")
    words = ("plan", "--data", rows, "--model", tiny_model)
    refused(ftui(*words), Exit.DATA_ROW, "13", "--bad-rows skip")
    for mode in ("skip", "repair"):
        got = ftui(*words, "--bad-rows", mode, "--json").json
        assert got["recipe"]["data"]["on_bad_row"] == mode
        assert "12 rows" in got["plan"]["sentence"]


@pytest.mark.parametrize("name", ["mess.jsonl", "mess.json"])
def test_a_line_that_cannot_be_read_names_the_ways_out(name: str, ftui: Ftui, tiny_model: Path, tmp_path: Path) -> None:
    good = '{"instruction": "What is one?", "output": "It is 1."}'
    file = tmp_path / name
    each = [good, '{"instruction": oops}', good]
    file.write_text("\n".join(each) if name.endswith("l") else f"[{','.join(each)}]", encoding="utf-8")
    words = ("--data", file, "--model", tiny_model)
    for verb in ("plan", "train"):
        refused(
            ftui(verb, *words), Exit.DATA_SYNTAX, "mend", "(--bad-rows skip)", "(--bad-rows repair)", "`ftui data FILE`"
        )
    assert "on 2 rows" in ftui("plan", *words, "--bad-rows", "skip").out
    assert "line" in ftui("data", file).out  # which lists it and goes on


def test_utf_16_is_called_by_its_name(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    rows.write_bytes(rows.read_text(encoding="utf-8").encode("utf-16"))
    refused(ftui("plan", "--data", rows, "--model", tiny_model), Exit.DATA_ENCODING, "UTF-16")


def test_a_missing_file(ftui: Ftui, tmp_path: Path) -> None:
    refused(ftui("data", tmp_path / "nothing.jsonl"), Exit.DATA_MISSING, "nothing.jsonl")


def test_a_model_folder_without_weights(ftui: Ftui, rows: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hollow"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    refused(ftui("plan", "--data", rows, "--model", folder), Exit.MODEL_NO_WEIGHTS, "hollow")


def test_an_unknown_preset_is_answered_with_a_near_one(ftui: Ftui) -> None:
    refused(ftui("plan", "--preset", "identty"), Exit.PRESET_UNKNOWN, "identity")


def test_a_full_disk(ftui: Ftui, rows: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: str | bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(paths, "write_private", full)
    monkeypatch.setattr("engine.runs.directory.write_private", full)
    said = ftui("train", "--data", rows, "--model", tiny_model)
    refused(said, Exit.DISK_FULL)


def test_a_full_disk_that_no_room_foresaw(ftui: Ftui, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/runs")

    monkeypatch.setattr(paths, "runs_dir", full)
    refused(ftui("where"), Exit.DISK_FULL, "disk is full", "/somewhere/runs")


def test_a_folder_that_may_not_be_written(ftui: Ftui, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied() -> Path:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/runs")

    monkeypatch.setattr(paths, "runs_dir", denied)
    refused(ftui("where"), Exit.PERMISSION, "/somewhere/runs")


def test_placeholders_left_open_are_a_warning_in_plan_and_a_refusal_in_train(
    ftui: Ftui, named_rows: Path, tiny_model: Path
) -> None:
    words = ("--data", named_rows, "--model", tiny_model, "--set", "name=Ada")
    planned = ftui("plan", *words)
    assert planned.code == 0
    assert "--set author=…" in planned.out
    refused(ftui("train", *words), Exit.PLAN_REFUSED, "--set author=…", "--force")


@pytest.mark.parametrize(
    ("verb", "typed", "words"),
    [
        ("data", "nam=Ada", ("there is no {{nam}} in the rows (did you mean name?)", "author, name")),
        ("plan", "Name=Ada", ("there is no {{Name}} in the rows (did you mean name?)",)),
        ("train", "autor=Ada", ("there is no {{autor}} in the rows (did you mean author?)",)),
    ],
)
def test_a_value_for_a_name_that_no_row_holds_is_refused(
    verb: str, typed: str, words: tuple[str, ...], ftui: Ftui, named_rows: Path, tiny_model: Path
) -> None:
    source = (named_rows,) if verb == "data" else ("--data", named_rows, "--name", "typo")
    told = ftui(verb, *source, "--model", tiny_model, "--set", "name=Eve", "--set", "author=Bob", "--set", typed)
    refused(told, Exit.USAGE, f"--set {typed.partition('=')[0]}", *words)
    assert not told.out and not list(paths.runs_dir().glob("typo*"))


def test_a_name_that_the_rows_do_not_hold_is_refused_of_a_preset_and_of_a_recipe(
    ftui: Ftui, rows: Path, tiny_model: Path, tmp_path: Path
) -> None:
    refused(ftui("plan", "--preset", "identity", "--model", tiny_model, "--set", "nam=Ada"), Exit.USAGE, "mean name?")
    refused(ftui("plan", "--data", rows, "--model", tiny_model, "--set", "name=A"), Exit.USAGE, "leave --set out")
    recipe = ftui("plan", "--data", rows, "--model", tiny_model, "--json").json["recipe"]
    recipe["data"]["values"] = {"unused": "saved for other rows"}
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(recipe))
    assert ftui("plan", file).code == 0
    refused(ftui("plan", file, "--set", "unused=yes"), Exit.USAGE, "{{unused}}")


def test_a_value_may_be_for_what_a_preset_asks_or_for_a_later_stage(
    ftui: Ftui, rows: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = ("plan", "--data", rows, "--model", tiny_model, "--json", "--set", "name=Ada")
    asked = ftui(*words, "--preset", "identity").json["recipe"]["checks"]["identity"]
    assert any("Ada" in check["expect"] for check in asked)
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([{"prompt": f"{n}?", "chosen": "I am {{name}}.", "rejected": "No."} for n in range(8)]))
    assert ftui(*words, "--then", f"dpo:{pairs}").code == 0


def test_a_setting_that_does_not_fit(ftui: Ftui, rows: Path, tiny_model: Path) -> None:
    refused(ftui("plan", "--data", rows, "--model", tiny_model, "--lr", "fast"), Exit.RECIPE_INVALID, "learning_rate")
    refused(ftui("plan", "--data", rows, "--model", tiny_model, "-e", "speed=1"), Exit.RECIPE_INVALID, "speed")
    refused(ftui("plan", "--data", rows, "--model", tiny_model, "-e", "rank"), Exit.USAGE, "rank")


def test_a_run_that_is_not_there(ftui: Ftui) -> None:
    refused(ftui("attach", "nobody"), Exit.RUN_UNKNOWN)
    refused(ftui("attach"), Exit.RUN_UNKNOWN, "ftui demo")


def test_usage(ftui: Ftui) -> None:
    refused(ftui("dtaa"), Exit.USAGE, "ftui data")
    refused(ftui("train", "--no-such-option"), Exit.USAGE, "--no-such-option", "ftui train --help")
    refused(ftui("data"), Exit.USAGE, "FILE")
    refused(ftui("chat", "x", "--temperature", "-1"), Exit.USAGE, "temperature")
    refused(ftui("export", "x", "--shard-size", "huge"), Exit.USAGE, "huge")
    refused(ftui("plan", "--preset", "identity", "--deadline", "soon"), Exit.USAGE, "soon", "2h")
    refused(ftui("plan", "--preset", "identity", "--goal", "fame"), Exit.USAGE, "fame", "persona")
    refused(ftui("data", "x", "--fix", "all"), Exit.USAGE, "--out")
    refused(ftui("data", "x", "--sample", "0"), Exit.USAGE, "--sample", "from 1 on")
    refused(ftui("data", "x", "--cutoff", "-3"), Exit.USAGE, "--cutoff")
    refused(ftui("data", "x", "--columns", "prompt"), Exit.USAGE, "--columns")


def test_errors_are_json_with_json(ftui: Ftui) -> None:
    said = ftui("plan", "--preset", "identty", "--json")
    assert said.code == Exit.PRESET_UNKNOWN
    assert said.out == ""
    error = json.loads(said.err)
    assert (error["code"], error["error"]) == (40, "preset_unknown")
    assert "identity" in error["cause"] + error["next_step"]


def test_what_nobody_foresaw_is_one_line_and_a_private_traceback(ftui: Ftui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary_0123456789")

    def broken() -> Path:
        raise RuntimeError("the moon\nis full, hf_canary_0123456789")

    monkeypatch.setattr(paths, "runs_dir", broken)
    said = ftui("where")
    assert said.code == Exit.UNEXPECTED
    assert len(said.err.strip().splitlines()) == 1
    assert "unexpected: RuntimeError: the moon is full" in said.err
    log = paths.state_dir() / "crash.log"
    assert str(log) in said.err
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert log.stat().st_mode & 0o077 == 0
    assert "hf_canary" not in log.read_text(encoding="utf-8") + said.err


def test_ctrl_c_is_130(ftui: Ftui, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(paths, "runs_dir", interrupted)
    assert ftui("where").code == Exit.INTERRUPTED


def test_foreign_text_in_an_error_cannot_reach_the_terminal(ftui: Ftui, monkeypatch: pytest.MonkeyPatch) -> None:
    def nasty() -> Path:
        raise FtuiError(Exit.DATA_ROW, "row \x1b[31mred\x1b[0m", "a\u202efile\nb", "[red]do[/red]")

    monkeypatch.setattr(paths, "runs_dir", nasty)
    said = ftui("where")
    refused(said, Exit.DATA_ROW, "␛[31mred", "<202e>", "[red]do[/red]")
    assert "\x1b" not in said.err


def test_every_exit_code_is_documented(ftui: Ftui) -> None:
    text = (Path(__file__).parents[3] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    shown = ftui("--help").out
    for code in Exit:
        assert f"| {code.value} | {code.name.lower()} |" in text
        assert f"{code.value} {code.name.lower()}" in shown


def test_every_verb_has_help(ftui: Ftui) -> None:
    shown = ftui("--help")
    assert shown.code == 0
    assert ftui().out == shown.out  # a start without a terminal
    for verb in app.VERBS:
        assert f"  {verb} " in shown.out
        said = ftui(verb, "--help")
        assert said.code == 0
        assert f"usage: ftui {verb}" in said.out


@pytest.mark.parametrize("flag", ["--version"])
def test_version(ftui: Ftui, flag: str) -> None:
    from engine import __version__

    assert ftui(flag).out.strip() == f"ftui {__version__}"
