"""How fast rows are counted, beside `datasets.map`, and what it takes to look at a very large file.

    python tests/bench/inspection.py [--data FILE] [--model FOLDER] [--big MB]

The first part counts the same rows three times each, in turns, in one process: with `datasets.map(batched=True)` over
the model's chat template and tokenizer as transformers has them, and with `lengths.count`. Both begin with rows that
are read and end with the token ids of all of them; the second has also found which are trained. Neither finds anything
in a cache. Row by row the counts must be equal. The second part writes a JSONL of `--big` megabytes and looks at it in a
process of its own: read, count, findings. (Not named inspect.py: scripts here are run from their folder, and a module
of that name would hide the one in the standard library.)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODEL = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "ftui/models/SmolLM2-135M-Instruct"
HAN = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
    "十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因由其些然前外天政四日那社义事平形"
)
LOOK = """
import json, sys, time
began = time.perf_counter()
from pathlib import Path
from engine.data import dataset, findings, lengths, tokenizer
from engine.recipe import Data
data, model = Data(source=sys.argv[1]), Path(sys.argv[2])
tokens = tokenizer.load(model)
first = lengths.count(dataset.load(data, strict=False, limit=2000), tokens, limit=2000)
seconds = {"first histogram": time.perf_counter() - began, "rows in it": len(first.rows)}
first.histogram(40)
def peak():  # not ru_maxrss, which begins with what the parent held
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
def timed(name, do):
    start = time.perf_counter()
    done = do()
    seconds[name] = time.perf_counter() - start
    seconds["peak MB after " + name] = peak()
    return done
rows = timed("reading", lambda: dataset.load(data, strict=False))
counted = timed("counting", lambda: lengths.count(rows, tokens))
found = timed("findings", lambda: findings.find(rows, counted))
seconds |= {"all": time.perf_counter() - began, "rows": len(rows.examples), "findings found": len(found), "counter": counted.counter}
print(json.dumps(seconds))
"""


def rows(megabytes: float, seed: int = 0) -> Iterator[dict[str, object]]:
    """Conversations in English (words of the project's own pages) and Chinese, of very different lengths."""
    chance = random.Random(seed)
    pages = " ".join(page.read_text(encoding="utf-8") for page in sorted(ROOT.glob("docs/**/*.md")))
    words = re.findall(r"(?<![^\s(])[A-Za-z][a-z']*[.,:;]?(?!\S)", pages)  # prose, without markup and paths

    def english() -> str:
        begin = chance.randrange(len(words) - 300)
        part = words[begin : begin + chance.choice([8, 30, 60, 120, 240])]
        chance.shuffle(part)
        return " ".join(part)

    def chinese() -> str:
        clauses = [
            "".join(chance.choices(HAN, k=chance.randrange(4, 16))) for _ in range(chance.choice([2, 6, 12, 24]))
        ]
        return "，".join(clauses) + "。"

    written = 0
    while written < megabytes * 1e6:
        turns = []
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            write = chance.choice([english, english, chinese])
            turns += [{"role": "user", "content": write()}, {"role": "assistant", "content": write()}]
        written += sum(len(str(turn["content"]).encode()) + 40 for turn in turns)
        yield {"messages": turns}


def write(path: Path, megabytes: float, seed: int = 0) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(megabytes, seed))


def beside(file: Path, model: Path) -> None:
    """`datasets.map` and `lengths.count`, in turns."""
    import datasets
    import transformers

    from engine import paths
    from engine.data import dataset, lengths, tokenizer
    from engine.recipe import Data

    read = dataset.load(Data(source=str(file)), strict=False)
    plain = [{"messages": [{"role": m.role, "content": m.content} for m in e.messages or []]} for e in read.examples]
    size = sum(len(turn["content"].encode()) for row in plain for turn in row["messages"]) / 1e6
    theirs = datasets.Dataset.from_list(plain)
    slow, fast = transformers.AutoTokenizer.from_pretrained(model), tokenizer.load(model)
    datasets.disable_caching()
    datasets.disable_progress_bars()

    def batch(part: dict[str, list[object]]) -> dict[str, list[list[int]]]:
        texts = slow.apply_chat_template(part["messages"], tokenize=False)
        return {"input_ids": slow(texts, add_special_tokens=False)["input_ids"]}

    ways: dict[str, Callable[[], Any]] = {
        "datasets.map": lambda: theirs.map(batch, batched=True, remove_columns=["messages"]),
        "lengths.count": lambda: lengths.count(read, fast),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    work: dict[str, list[float]] = {name: [] for name in ways}  # seconds of processor time
    for _ in range(3):
        shutil.rmtree(paths.cache_dir() / "lengths", ignore_errors=True)
        done = {}
        for name, way in ways.items():
            began, worked = time.perf_counter(), time.process_time()
            done[name] = way()
            seconds[name].append(time.perf_counter() - began)
            work[name].append(time.process_time() - worked)
        counted = done["lengths.count"]
        assert [len(ids) for ids in done["datasets.map"]["input_ids"]] == list(counted.total), "the counts differ"
    began = time.perf_counter()
    lengths.count(read, fast)
    again = time.perf_counter() - began
    print(f"{len(plain):,} rows, {size:.1f} MB of text, {sum(counted.total):,} tokens, counts equal row by row")
    for name, times in seconds.items():
        middle = statistics.median(times)
        rate = f"{size / middle:6.1f} MB/s   {len(plain) / middle:9,.0f} rows/s"
        each = " ".join(f"{one:.2f}" for one in times)
        print(f"  {name:14} {middle:7.2f} s   {rate}   processor {statistics.median(work[name]):6.2f} s   ({each})")
    faster, less = (
        statistics.median(figures["datasets.map"]) / statistics.median(figures["lengths.count"])
        for figures in (seconds, work)
    )
    print(f"  {faster:.1f} times as fast, {less:.1f} times less processor time; {counted.counter}")
    print(f"  the same rows once more, from what was kept: {again:.3f} s")


def look(megabytes: float, model: Path, folder: Path) -> None:
    """A large file, in a process of its own."""
    file = folder / "large.jsonl"
    write(file, megabytes, seed=1)
    command = [sys.executable, "-c", LOOK, str(file), str(model)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    print(f"{file.stat().st_size / 1e6:,.0f} MB of JSONL, looked at in a process of its own")
    for name, value in json.loads(done.stdout.splitlines()[-1]).items():
        print(f"  {name:28} {value:,.2f}" if isinstance(value, float) else f"  {name:28} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="rows to count, instead of 18 MB of made ones")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder with a tokenizer and chat template")
    parser.add_argument("--big", type=float, default=100, metavar="MB", help="the large file (default 100; 0 for none)")
    parser.add_argument("--mb", type=float, default=18, help="how much to make for the first part (0 to leave it out)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inspection-") as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        if args.data or args.mb:
            made = Path(folder) / "rows.jsonl"
            if not args.data:
                write(made, args.mb)
            beside(args.data or made, args.model)
        if args.big:
            look(args.big, args.model, Path(folder))


if __name__ == "__main__":
    main()
