"""Every place that foreign text comes from, filled with hostile strings: rows, models, presets, runs, journals, logs.

All below the XDG folders of the test and one folder of data; written as a foreign program would, not through ours.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from engine import paths
from engine.recipe import Check, Checks, Data, Model, Recipe, to_yaml
from engine.runs import measured
from engine.runs.directory import RunDir
from engine.runs.measured import Asked
from tests.engine.settings import settings
from tests.pty.texts import Texts


def write(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    return path


# rows -------------------------------------------------------------------------------------------------------------


def rows(folder: Path, texts: Texts, count: int) -> Path:
    """Instructions, inputs, answers and system prompts: four strings a row. The file's name is one, too."""
    keys = ("instruction", "input", "output", "system")
    lines = (json.dumps({key: texts() for key in keys}) for _ in range(count // 4))
    return write(folder / texts.name(".jsonl"), lines)


def other_rows(folder: Path, texts: Texts, count: int) -> dict[str, Path]:
    """Files of the other shapes, and files that cannot be used: about `count` strings in each."""
    found = {}

    def file(what: str, lines: Iterable[str], suffix: str = ".jsonl") -> None:
        found[what] = write(folder / f"{what}-{texts.name(suffix)}", lines)

    def turns(roles: tuple[str, ...]) -> list[dict[str, str]]:
        return [{"role": role, "content": texts()} for role in roles]

    few = max(4, count // 5)
    file("talk", (json.dumps({"messages": turns(("system", "user", "assistant"))}) for _ in range(few)))
    file("pairs", (json.dumps({"prompt": texts(), "chosen": texts(), "rejected": texts()}) for _ in range(few)))
    file("roles", (json.dumps({"conversations": [{"from": texts(), "value": texts()}]}) for _ in range(few)))
    file("wrong", (json.dumps({"instruction": texts(), "output": [texts(), {texts(): 1}]}) for _ in range(few)))
    mixed = [{"instruction": texts(), "output": texts() if i % 3 else [texts()]} for i in range(max(few, 12))]
    file("mixed", map(json.dumps, mixed))
    file("broken", (f'{{"instruction": "{texts.utf8()}", "output": "x"' for _ in range(few)))
    file("keys", (json.dumps({"instruction": "a", "output": "b", texts(): texts()}) for _ in range(few)))
    columns = texts.many(6)
    file("columns", (json.dumps({column: texts() for column in columns}) for _ in range(few)))
    file("holders", (json.dumps({"instruction": f"{{{{{texts()[:9]}}}}} who?", "output": texts()}) for _ in range(few)))
    file("plain", (texts.utf8() for _ in range(few)), ".txt")
    table = folder / f"table-{texts.name('.csv')}"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(texts.utf8() for _ in range(4))
        writer.writerows([texts.utf8() for _ in range(4)] for _ in range(few))
    found["table"] = table
    (folder / texts.name()).mkdir()
    entries = {texts(): {"file_name": found["talk"].name, "columns": {"messages": texts()}} for _ in range(4)}
    entries |= {
        "theirs": {"file_name": os.fspath(found["keys"].name), "columns": {texts(): texts(), "prompt": texts()}}
    }
    entries |= {texts(): {"file_name": texts(), "formatting": texts()}, texts(): texts()}
    (folder / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    return found


def talks(folder: Path, texts: Texts, count: int, turns: int) -> Path:
    """Conversations of so many turns, each a string; `count` strings in all."""
    roles = ("user", "assistant")
    lines = (
        json.dumps({"messages": [{"role": roles[at % 2], "content": texts()} for at in range(turns)]})
        for _ in range(count // turns)
    )
    return write(folder / texts.name(".jsonl"), lines)


# models and presets -----------------------------------------------------------------------------------------------


def models(tiny: Path, texts: Texts, count: int) -> list[str]:
    """Models among those that are kept here: names, architectures, types, dtypes, special tokens, templates."""
    found = []
    for number in range(max(3, count // 6)):
        folder = paths.models_dir() / texts.name()
        shutil.copytree(tiny, folder)
        config = json.loads((folder / "config.json").read_text())
        if number % 3 == 0:
            config |= {"architectures": [texts()], "torch_dtype": texts(), "dtype": texts(), "_name_or_path": texts()}
        elif number % 3 == 1:
            config |= {"model_type": texts(), "hidden_size": texts()}
        else:
            config |= {"quantization_config": {"quant_method": texts()}, "auto_map": {"AutoModel": texts()}}
        (folder / "config.json").write_text(json.dumps(config))
        tokens = json.loads((folder / "tokenizer_config.json").read_text())
        tokens |= {"eos_token": texts(), "bos_token": texts(), "chat_template": texts()}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
        found.append(str(folder))
    cached = Path(os.environ.get("HF_HUB_CACHE", Path.home() / ".cache/huggingface/hub"))
    folder = cached / f"models--{texts.name()}--x"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a")
    shutil.copytree(tiny, folder / "snapshots" / "a")
    return found


def presets(texts: Texts, count: int) -> list[str]:
    """Presets of the person's own: every text of theirs, and some that cannot be read."""
    folder = paths.private_dir(paths.config_dir() / "presets")
    found = []
    for number in range(max(2, count // 13)):
        file = folder / texts.name(".yaml")
        content: dict[str, Any] = {
            "title": texts.utf8(),
            "summary": texts.utf8(),
            "when": texts.utf8(),
            "intent": "instructions" if number % 4 else texts.utf8(),
            "settings": {"epochs": 2.0},
            "reasons": {"epochs": texts.utf8()},
            "values": {texts.utf8(): texts.utf8()},
            "notes": [texts.utf8()],
            "prompt": texts.utf8() + " {instruction}",
            "completion": "{output} " + texts.utf8(),
            "probe": texts.utf8(),
        }
        content["measured"] = [
            {"model": texts.utf8(), "hardware": texts.utf8(), "date": "2026-11-22", "seconds": 60.0, "steps": 5}
            | {"first_loss": 2.0, "last_loss": 1.0, "note": texts.utf8()}
        ]
        file.write_text(yaml.safe_dump(content, allow_unicode=False), encoding="utf-8")
        found.append(file.stem)
    return found


def recipes(folder: Path, texts: Texts, rows: Path) -> dict[str, Path]:
    """A recipe, a LLaMA-Factory YAML with keys that nobody knows, and a file that is neither."""
    factory = {"model_name_or_path": texts.utf8(), "stage": "sft", "finetuning_type": "lora", "dataset": texts.utf8()}
    factory |= {texts.utf8(): texts.utf8() for _ in range(8)} | {"template": texts.utf8(), "output_dir": texts.utf8()}
    whole = folder / f"recipe-{texts.name('.yaml')}"
    whole.write_text(to_yaml(recipe(texts, rows)), encoding="utf-8")
    return {
        "recipe": whole,
        "factory": write(folder / f"factory-{texts.name('.yaml')}", [yaml.safe_dump(factory)]),
        "neither": write(folder / f"neither-{texts.name('.yaml')}", [texts.utf8() + ": [", texts.utf8()]),
    }


# runs -------------------------------------------------------------------------------------------------------------


def recipe(texts: Texts, rows: Path | None = None) -> Recipe:
    return Recipe(
        name=texts.utf8(),
        preset=texts.utf8(),
        model=Model(source=texts.utf8()),
        data=Data(
            source=str(rows) if rows else texts.utf8(),
            system=texts.utf8(),
            values={texts.utf8(): texts.utf8()},
        ),
        settings=settings(),
        probe=texts.utf8(),
        checks=Checks(identity=[Check(ask=texts.utf8(), expect=[texts.utf8()])]),
    )


def events(texts: Texts, count: int, last: str = "ready") -> list[dict[str, Any]]:
    """A journal in which every text of every kind of event is hostile; `last` is the state that it ends in."""
    t = texts.utf8
    found: list[dict[str, Any]] = [
        {"event": "state", "state": "preparing", "detail": t()},
        {"event": "state", "state": "loading", "detail": t()},
        {"event": "progress", "what": t(), "done": 3, "total": 7},
        {"event": "start", "attempt": 1, "from_step": 0, "total_steps": count, "epochs": 2.0, "rows": 9, "device": t()}
        | {"versions": {t(): t()}, "hardware": {t(): t()}, "parameters": 10**8, "trained_parameters": 10**6},
        {"event": "state", "state": "training", "detail": t()},
    ]
    step, begin = 0, texts.count
    while texts.count - begin < count:
        step += 1
        number = {"step": step, "epoch": 0.5, "loss": 2.0 / step, "learning_rate": 1e-3, "grad_norm": 0.5}
        found += [
            {"event": "step", **number, "tokens": 5, "tokens_per_second": 9.0, "memory": 10**9, "seconds_left": 5.0},
            {"event": "sample", "step": step, "prompt": t(), "answer": t()},
            {"event": "note", "text": t()},
            {"event": "checkpoint", "step": step, "path": t()},
            {"event": "evaluated", "step": step, "loss": 1.5},
            {"event": t(), "text": t()},
        ]
    asked = [
        {"ask": t(), "expect": [t()], "before": t(), "after": t(), "before_right": False, "after_right": True}
        for _ in range(4)
    ]
    found.append({"event": "evaluation", "identity": asked, "general": asked[:2]})
    found.append({"event": "retry", "attempt": 2, "kind": t(), "cause": t(), "change": t(), "settings": {t(): t()}})
    if last == "failed":
        found.append({"event": "failure", "cause": t(), "where": t(), "next_step": t(), "code": 52})
    elif last == "ready":
        found.append({"event": "result", "kind": "adapter", "path": t(), "step": step})
        found.append({"event": "exported", "kind": "adapter", "path": t(), "difference": 0.001})
    else:
        found.append({"event": "progress", "what": t(), "done": 3, "total": 7})
    found.append({"event": "state", "state": last, "detail": t()})
    return [{**event, "seq": number, "time": 1.8e9 + number} for number, event in enumerate(found, 1)]


def run(texts: Texts, last: str, count: int = 0, log: int = 0, minute: int = 0) -> RunDir:
    """A run with a hostile folder, recipe, journal of `count` strings, log of `log` lines, and records of its processes."""
    made = RunDir(paths.runs_dir() / f"2026-11-22-{minute // 60:02}{minute % 60:02}-{texts.name()}")
    made.path.mkdir(mode=0o700)
    made.checkpoints.mkdir()
    made.recipe_path.write_text(to_yaml(recipe(texts)), encoding="utf-8")
    made.plan_path.write_text("{}")
    write(made.journal_path, (json.dumps(event, separators=(",", ":")) for event in events(texts, count, last)))
    made.log_path.write_bytes(
        b"".join(texts().encode("utf-8", "surrogatepass") + b" \x9b31m\xff\n" for _ in range(log or 2))
    )
    if last == "ready":
        made.adapter.mkdir()
        (made.adapter / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": texts(), texts(): texts()})
        )
        (made.adapter / "adapter_model.safetensors").write_bytes(b"")
        evaluated(made, texts)
    if last not in ("ready", "failed", "stopped"):
        elsewhere = {"host": texts.utf8(), "boot_id": texts.utf8(), "pid": 1, "start": 1}
        record = {"attempt": 1, "supervisor": elsewhere, "worker": elsewhere, "time": 1.8e9, "journal": 0}
        made.supervisor_path.write_text(json.dumps({**record, "job": {"kind": "train", "run": texts(), "options": {}}}))
        made.exit_path.write_text(json.dumps({"attempt": 1 + minute % 2, "code": 3, "signal": None, texts(): texts()}))
    return made


def evaluated(made: RunDir, texts: Texts) -> None:
    """What was measured of the run, every text of it hostile."""
    asked = Asked(rows=0)
    scores = {"loss": 1.0, "perplexity": 2.7, "rougeL": 0.5, "general_loss": 1.0, "general_right": 1}
    known = {"base_right": True, "tuned_right": False, "base_loss": 1.0, "tuned_loss": 2.0}
    row = {"base_loss": 1.0, "tuned_loss": 2.0, "base_rouge": 0.5, "tuned_rouge": 0.4, "tokens": 3}
    found = {
        "key": measured.ready(made, asked),
        "run": texts.utf8(),
        "model": texts.utf8(),
        "asked": {"rows": 0},  # of which the key needs no rows
        "rows": [
            {"row": at, **row, **{name: texts.utf8() for name in ("prompt", "reference", "base", "tuned")}}
            for at in range(6)
        ],
        "general": [{**known, **{name: texts.utf8() for name in ("ask", "answer", "base", "tuned")}} for _ in range(2)],
        "base": scores,
        "tuned": scores,
        "intervals": {"rougeL": [-0.1, 0.1], texts.utf8(): [0, 1]},
        "bleu": texts.utf8(),
        "versions": {texts.utf8(): texts.utf8()},
        **{"available": 6, "left_out": 0, "seen": None},
    }
    file = measured.path(made, str(found["key"]))
    file.parent.mkdir(mode=0o700)
    file.write_text(json.dumps(found))


def runs(texts: Texts, count: int) -> list[RunDir]:
    """Runs in every state, the first of them newest; a folder whose recipe is no recipe is among them."""
    found = []
    minute = 20 * 60
    begin = texts.count
    while texts.count - begin < count or len(found) < 8:
        state = ("ready", "failed", "stopped", "training", "evaluating", "failed")[len(found) % 6]
        found.append(run(texts, state, minute=minute))
        minute -= 1
    found[-1].recipe_path.write_text(json.dumps({texts.utf8(): texts.utf8()}))
    return found
