"""How fast ftui answers: seconds to the first token, and tokens a second beside transformers' `generate`, in turns.

    python -m tests.bench.chat                                        the starter model
    python -m tests.bench.chat --tokens 40 --rounds 3
    python -m tests.bench.chat --llama ENVIRONMENT/bin/python         with llama-cpp-python in it, on the GGUF
                                                                      (f16) that --gguf names

The base, and the base with a LoRA on all matrices (rank 8, random: what it says does not matter, how long it takes does;
or a trained one that `--adapter` names).
Greedy; the same tokens are asked for on both sides, and must be the same (in 16 bit they may differ). Seconds are the clock's
and, in brackets, the processor's: on a busy machine only the ratio of the latter holds. Each figure is the best of the rounds.

Where chat reads in 16 bit, its answers are then checked against those in fp32 on `--prompts` questions of the identity preset.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from msgspec import Struct

IDENTITY = Path(__file__).parents[2] / "presets" / "identity.jsonl"
LLAMA = """
import sys, time, json
from llama_cpp import Llama
path, count, threads, ids = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
model = Llama(path, n_ctx=1024, n_threads=threads, verbose=False)
for _ in range(2):
    model.reset()
    times = [(time.time(), time.process_time())]
    for _, token in zip(range(count), model.generate(ids, top_k=1, temp=0.0)):
        times.append((time.time(), time.process_time()))
print(json.dumps([[b - a for a, b in zip(times[0], times[1])], [b - a for a, b in zip(times[1], times[-1])]]))
"""


class Taken(Struct):
    """Seconds to the first token and a later one: (by the clock, of the processor)."""

    first: tuple[float, float]
    later: tuple[float, float]


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(begin: tuple[float, float], share: float = 1.0) -> tuple[float, float]:
    end = now()
    return (end[0] - begin[0]) * share, (end[1] - begin[1]) * share


def ours(source: Any, ids: list[int], count: int) -> tuple[list[int], Taken]:
    answer: list[int] = []
    begin = now()
    first = begin
    for at in range(count):
        answer.append(int(source.logits([*ids, *answer]).argmax()))
        if at == 0:
            first, begin = since(begin), now()
    return answer, Taken(first, since(begin, 1 / (count - 1)))


def theirs(model: Any, ids: list[int], count: int) -> tuple[list[int], Taken]:
    import torch
    from transformers.generation.streamers import BaseStreamer

    class Times(BaseStreamer):
        def __init__(self) -> None:
            self.at: list[tuple[float, float]] = []

        def put(self, value: Any) -> None:
            self.at.append(now())  # the prompt comes first

        def end(self) -> None:
            pass

    times, given = Times(), torch.tensor([ids])
    begin = now()
    made = model.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=-1,
        streamer=times,
    )
    first, last = times.at[1], times.at[-1]
    later = tuple((b - a) / (count - 1) for a, b in zip(first, last, strict=True))
    return made[0, len(ids) :].tolist(), Taken((first[0] - begin[0], first[1] - begin[1]), (later[0], later[1]))


def best(rounds: list[Taken]) -> Taken:
    return Taken(
        *(tuple(min(one[at] for one in side) for at in (0, 1)) for side in zip(*map(_both, rounds), strict=True))
    )


def _both(taken: Taken) -> tuple[tuple[float, float], tuple[float, float]]:
    return taken.first, taken.later


def say(name: str, taken: Taken, beside: Taken | None = None) -> None:
    first, later = taken.first, taken.later
    words = f"{name:28} first {first[0]:6.3f} s ({first[1]:.3f})   {1 / later[0]:6.1f} tokens/s ({1 / later[1]:.1f})"
    if beside is not None:
        words += f"   {beside.later[0] / later[0]:.2f} ({beside.later[1] / later[1]:.2f}) times as fast"
    print(words, flush=True)


def compare(name: str, model: Any, tuned: bool, ids: list[int], more: list[int], count: int, rounds: int) -> Taken:
    """Print what reads `ids` and then a second turn, by transformers and by ftui, in fp32 and as chat does here: the last
    one is returned."""
    from engine.worker import decode, products

    readers = {}
    for bits in (False, True) if products.short_pays(model) else (False,):
        begin = now()
        source = readers["ftui, 16 bit" if bits else "ftui"] = decode.reader(model, tuned, short=bits)
        made = since(begin)
        print(f"{name}: made ready in {made[0]:.2f} s ({made[1]:.2f}), read by {type(source).__name__}", flush=True)
    taken: dict[str, list[Taken]] = {}
    second: dict[str, list[Taken]] = {}
    for _ in range(rounds):
        expected, one = theirs(model, ids, count)
        taken.setdefault("transformers", []).append(one)
        for who, source in readers.items():
            source.logits(more[-1:])  # forgets what it has read
            answer, one = ours(source, ids, count)
            taken.setdefault(who, []).append(one)
            if answer != expected and who == "ftui":
                print(f"{name}: NOT the same answer: {answer} and {expected}")
            second.setdefault(who, []).append(ours(source, [*ids, *answer, *more], 2)[1])
    for who, some in taken.items():
        say(f"{name}, {who}", best(some), best(taken["transformers"]) if who in readers else None)
    for who, some in second.items():
        turn = best(some).first
        print(f"{name}, {who}, second turn of {len(more)} tokens: first {turn[0]:.3f} s ({turn[1]:.3f})", flush=True)
    return best(taken[[*readers][-1]])


def check(name: str, model: Any, tuned: bool, prompts: list[list[int]], count: int) -> None:
    """Print how far what is read in 16 bit is from fp32, on the greedy answers of fp32."""
    from engine.worker import decode

    exact, short = decode.reader(model, tuned), decode.reader(model, tuned, short=True)
    same = tokens = whole = 0
    apart = 0.0
    for ids in prompts:
        text, alike = list(ids), True
        for _ in range(count):
            one, other = (source.logits(text).log_softmax(-1) for source in (exact, short))
            best, guess = int(one.argmax()), int(other.argmax())
            same, tokens, alike = same + (best == guess), tokens + 1, alike and best == guess
            apart += float((one.exp() * (one - other)).sum())
            text.append(best)
        whole += alike
    print(
        f"{name}, 16 bit against fp32: {whole} of {len(prompts)} answers of {count} tokens the same to the last, {same} of {tokens} "
        f"next tokens; {apart / tokens:.1e} nats apart (Kullback-Leibler)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--llama", type=Path, help="a Python that has llama-cpp-python")
    parser.add_argument("--gguf", type=Path, help="the model as GGUF, for llama.cpp")
    parser.add_argument("--adapter", type=Path, help="of the starter model, in the place of a random one")
    parser.add_argument("--prompts", type=int, default=50, help="on which 16 bit is checked")
    asked = parser.parse_args()

    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    from engine.data import tokenizer
    from engine.data.convert import Message
    from engine.models import sources
    from engine.worker import products

    torch.manual_seed(0)
    folder = sources.resolve("starter")
    words = tokenizer.load(folder)
    ids = words.prompt([Message("user", "Tell me a story.")])
    more = words.prompt([Message("user", "And what came then?")])
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    if asked.adapter:
        model: Any = PeftModel.from_pretrained(base, asked.adapter).eval()
    else:
        model = get_peft_model(base, LoraConfig(r=8, lora_alpha=8, target_modules="all-linear")).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if ".lora_B." in name:
                    weight.normal_(std=0.005)
    print(f"{torch.get_num_threads()} threads; a prompt of {len(ids)} tokens, answers of {asked.tokens}", flush=True)
    with torch.no_grad():
        mine = compare("tuned", model, True, ids, more, asked.tokens, asked.rounds)
        with model.disable_adapter():
            compare("base", model, False, ids, more, asked.tokens, asked.rounds)
        if asked.prompts and products.short_pays(model):
            rows = [json.loads(line) for line in IDENTITY.read_text().splitlines()][: asked.prompts]
            prompts = [words.prompt([Message("user", row["instruction"])]) for row in rows]
            check("tuned", model, True, prompts, asked.tokens)
            with model.disable_adapter():
                check("base", model, False, prompts, asked.tokens)
    if asked.llama and asked.gguf:
        given = [str(asked.gguf), str(asked.tokens), str(torch.get_num_threads()), json.dumps(ids)]
        done = subprocess.run([asked.llama, "-c", LLAMA, *given], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"llama.cpp: {done.stderr.strip().splitlines()[-1:]}")
        first, later = json.loads(done.stdout)
        other = Taken(tuple(first), tuple(one / (asked.tokens - 1) for one in later))
        say("llama.cpp", other)
        say("tuned, ftui", mine, other)


if __name__ == "__main__":
    main()
