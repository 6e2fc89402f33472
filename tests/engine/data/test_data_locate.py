"""Which files a source is: folders, a LLaMA-Factory registry, a preset's rows, data sets of the hub."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.data import dataset, hub, locate
from engine.errors import Exit, FtuiError
from engine.recipe import Data, Source

ROWS = [{"question": f"Ask {n}?", "reply": f"Answer {n}."} for n in range(4)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(source: Source) -> FtuiError:
    with pytest.raises(FtuiError) as caught:
        locate.files(source)
    return caught.value


def names(folder: Path, **options: Any) -> list[str]:
    return [path.name for path in locate.files(Source(source=str(folder), **options)).paths]


def test_a_folder_is_its_files_of_one_suffix_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", "c.jsonl", ".d.jsonl", "notes.md", "README.md", "picture.png", "one.csv"):
        (tmp_path / name).write_text("{}\n")
    assert names(tmp_path) == ["a.jsonl.gz", "b.jsonl", "c.jsonl"]
    located = locate.files(Source(source=str(tmp_path)))
    assert located.name == tmp_path.name
    assert "3 .jsonl files" in located.notes[0] and "4 other files" in located.notes[0]


def test_a_folder_named_by_splits_is_read_for_training(tmp_path: Path) -> None:
    for name in ("train-00001-of-00002.jsonl", "train-00000-of-00002.jsonl", "test.jsonl", "validation.jsonl"):
        write(tmp_path / name, ROWS)
    assert names(tmp_path) == ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"]
    assert "left aside: test.jsonl, validation.jsonl" in locate.files(Source(source=str(tmp_path))).notes[0]
    assert names(tmp_path, split="test") == ["test.jsonl"]
    error = refused(Source(source=str(tmp_path), split="dev"))
    assert error.code == Exit.DATA_MISSING and "test.jsonl" in error.next_step


def test_a_folder_without_rows_says_where_some_may_be(tmp_path: Path) -> None:
    write(tmp_path / "data" / "rows.jsonl", ROWS)
    (tmp_path / "picture.png").write_bytes(b"")
    error = refused(Source(source=str(tmp_path)))
    assert error.code == Exit.DATA_MISSING and "data" in error.next_step
    assert names(tmp_path / "data") == ["rows.jsonl"]


def test_the_rows_of_a_preset() -> None:
    located = locate.files(Source(source="preset:identity"))
    assert located.name == "identity" and located.paths[0].is_file()
    assert refused(Source(source="preset:no-such")).code == Exit.PRESET_UNKNOWN


ENTRIES: dict[str, Any] = {
    "mine": {"file_name": "mine.jsonl", "columns": {"prompt": "question", "response": "reply"}},
    "talks": {
        "file_name": "talks.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "talk", "tools": "functions", "images": "pictures"},
        "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "it"},
    },
    "pairs": {"file_name": "pairs.jsonl", "ranking": True, "columns": {"prompt": "q", "chosen": "a", "rejected": "b"}},
    "plain": {"file_name": "plain.txt", "columns": {"prompt": "text"}},
    "plain-rows": {"file_name": "plain.jsonl", "columns": {"prompt": "body"}},
    "parts": {"file_name": "parts", "split": "test"},
    "far": {"hf_hub_url": "someone/far", "subset": "en", "split": "train", "folder": "python"},
    "elsewhere": {"ms_hub_url": "someone/elsewhere"},
}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps(ENTRIES))
    write(tmp_path / "mine.jsonl", ROWS)
    turns = [{"who": "me", "says": "hi"}, {"who": "it", "says": "ho"}]
    write(tmp_path / "talks.jsonl", [{"talk": turns, "functions": "[]", "pictures": []}] * 2)
    write(tmp_path / "pairs.jsonl", [{"q": "say", "a": "yes", "b": "no"}] * 2)
    write(tmp_path / "plain.jsonl", [{"body": "some text"}])
    (tmp_path / "plain.txt").write_text("one\ntwo\n")
    write(tmp_path / "parts" / "train.jsonl", ROWS)
    write(tmp_path / "parts" / "test.jsonl", ROWS[:1])
    return path


def test_entries_of_a_registry_bring_their_columns_and_tags(registry: Path) -> None:
    def load(entry: str, **options: Any) -> dataset.Dataset:
        return dataset.load(Data(source=f"{registry}:{entry}", **options))

    mine = load("mine")
    assert mine.shape.columns == {"prompt": "question", "completion": "reply"} and len(mine.examples) == 4
    talks = load("talks")
    assert talks.shape.tags["role_tag"] == "who"
    assert [message.role for message in talks.examples[0].messages or []] == ["user", "assistant"]
    assert any("images" in note for note in talks.notes)
    assert load("pairs").stage == "dpo"
    assert [example.text for example in load("plain").examples] == ["one", "two"]
    assert load("plain-rows").stage == "pretraining"
    assert len(load("parts").examples) == 1 and len(load("parts", split="train").examples) == 4
    other = locate.files(Source(source=f"{registry}:mine", columns={"prompt": "reply"}))
    assert other.columns == {"prompt": "reply", "completion": "reply"}  # a person's word over the registry's


def test_what_a_registry_does_not_have(registry: Path) -> None:
    error = refused(Source(source=f"{registry}:mime"))
    assert error.code == Exit.DATA_MISSING and "did you mean mine" in error.next_step
    error = refused(Source(source=f"{registry}:zzzz"))
    assert "it lists: mine, talks" in error.next_step
    error = refused(Source(source=str(registry)))
    assert error.code == Exit.DATA_MISSING and "lists 8 data sets: mine, talks" in error.cause
    assert error.next_step.endswith(f"{registry}:mine")
    assert "ms_hub_url" in refused(Source(source=f"{registry}:elsewhere")).cause
    error = refused(Source(source=f"{registry}:far"))
    assert error.code == Exit.NETWORK and error.where == "hub:someone/far"
    registry.write_text("{,")
    assert refused(Source(source=f"{registry}:mine")).code == Exit.DATA_SYNTAX
    assert refused(Source(source=str(registry.with_name("no")) + "/dataset_info.json:mine")).code == Exit.DATA_MISSING


def test_a_data_file_may_be_called_as_a_registry(tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps(ROWS))
    assert len(dataset.load(Data(source=str(path), columns={"completion": "reply"})).examples) == 4


def test_the_shared_registry(shared_data: Path) -> None:
    registry = shared_data / "dataset_info.json"
    found = {}
    for entry in json.loads(registry.read_text()):
        try:
            data = dataset.load(Data(source=f"{registry}:{entry}"), strict=False)
        except FtuiError as error:
            assert error.code in (Exit.NETWORK, Exit.DATA_MISSING), entry
        else:
            found[entry] = (data.shape.name, data.stage, len(data.examples), len(data.skipped))
    assert found == {
        "identity": ("alpaca", "sft", 91, 0),
        "alpaca_en_demo": ("alpaca", "sft", 999, 0),
        "glaive_toolcall_en_demo": ("sharegpt", "sft", 300, 0),
        "dpo_en_demo": ("preference", "dpo", 300, 0),
        "kto_en_demo": ("rated", "kto", 300, 0),
        "wiki_demo": ("text", "pretraining", 30, 0),
        "c4_demo": ("text", "pretraining", 300, 0),
    }


def test_the_hub_is_offline(tmp_path: Path) -> None:
    error = refused(Source(source="hub:someone/something"))
    assert error.code == Exit.NETWORK
    assert "cannot be reached" in error.cause and error.where == "hub:someone/something" and error.next_step


def test_a_data_set_is_fetched_once_by_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` reads a folder as it reads a repository of the hub."""
    folder = tmp_path / "set"
    write(folder / "train.jsonl", ROWS)
    write(folder / "test.jsonl", ROWS[:1])
    path, notes = hub.fetch(str(folder))
    assert "split train" in notes[0] and "test" in notes[0]
    data = dataset.load(Data(source=f"hub:{folder}", columns={"completion": "reply"}))
    assert len(data.examples) == 4 and data.notes == notes
    assert data.origin(2) == (str(path), 2, None)

    def never(*args: object) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(hub, "_run", never)
    assert hub.fetch(str(folder)) == (path, notes)


def test_a_split_or_subset_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(folder / "train.jsonl", ROWS)
    with pytest.raises(FtuiError) as caught:
        hub.fetch(str(folder), split="dev")
    assert caught.value.code == Exit.DATA_MISSING and "train" in caught.value.cause
    with pytest.raises(FtuiError) as caught:
        hub.fetch(str(folder), subset="en")
    assert caught.value.code == Exit.DATA_MISSING and "default" in caught.value.cause


@pytest.fixture
def empty_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that answers and knows no data set."""

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if "SmolLM2" in self.path else 404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        do_GET = do_POST = do_HEAD

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()


@pytest.mark.usefixtures("empty_hub")
def test_a_name_that_the_hub_does_not_know() -> None:
    error = refused(Source(source="hub:someone/nothing"))
    assert error.code == Exit.DATA_MISSING and "someone/nothing" in error.cause and "HF_TOKEN" in error.next_step
