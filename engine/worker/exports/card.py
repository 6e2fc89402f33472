"""The model card: what was trained on what, how, and what was measured. It says nothing that the run does not know.

README.md with the front matter that the hub reads. Only names stand in it: no folder of this machine, no token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from engine.advice import fields
from engine.models import starter
from engine.models.shape import Shape
from engine.recipe import Recipe, Source
from engine.runs import scoreboard
from engine.runs.events import Answer
from engine.runs.scoreboard import Compared
from engine.runs.view import RunView
from engine.text import safe
from engine.text import size as in_words

_STAGES = {
    "sft": "supervised fine-tuning",
    "pretraining": "continued pre-training",
    "dpo": "direct preference optimisation",
    "kto": "KTO",
    "reward": "training as a reward model",
}
_PIPELINES: dict[Shape, str] = {
    "causal": "text-generation",
    "masked": "fill-mask",
    "seq2seq": "text2text-generation",
}
BROUGHT = "ftui_bottleneck.py"  # what an adapter comes with that peft does not know
_NAMED = 20  # added tokens that are written out
_NOT_RECIPE = ("save_every", "sample_every")  # how a run was watched, not how it was trained


class Made(Struct, frozen=True, kw_only=True):
    """What the export is and how it compared. `form` is a GGUF format or a dtype; `file` the GGUF's name."""

    kind: str
    form: str
    difference: float
    alike: int = 0
    asked: int = 0
    file: str = ""
    ollama: str = ""
    shape: Shape = "causal"


def write(
    name: str,
    recipe: Recipe,
    view: RunView,
    made: Made,
    base: Path,
    data_sha256: str,
    compared: Compared | None = None,
) -> str:
    """The README.md of an export of the run called `name`. `base` is the base model's folder, read for its licence;
    `compared` what was measured of the run's weights as they are."""
    parts = [_front(recipe, made, base), f"# {_plain(name)}", _what(recipe, made), *_use(recipe, made)]
    parts += ["## Data", *_data(recipe, view, data_sha256), "## Recipe", *_recipe(recipe, view)]
    parts += [
        "## Measured",
        *_measured(view),
        *([] if compared is None else _scores(compared)),
        "## This export",
        *_compared(made),
        "## Made with",
        *_versions(recipe, view),
    ]
    return "\n\n".join(parts) + "\n"


def base_id(recipe: Recipe) -> str | None:
    """The base model's id on the hub, None for a folder or a file of this machine."""
    source = recipe.model.source
    if source == "starter":
        return starter.HUB_ID
    is_id = source.count("/") == 1 and not source.startswith(("/", ".", "~")) and not Path(source).exists()
    return source if is_id else None


def base_name(recipe: Recipe) -> str:
    """What to call the base: its id, or the last part of its path."""
    return base_id(recipe) or Path(recipe.model.source).name


def licence(recipe: Recipe, base: Path) -> str | None:
    """The base model's licence as its own card names it, None where nothing says so."""
    if recipe.model.source == "starter":
        return "apache-2.0"
    try:
        text = (base / "README.md").read_text(encoding="utf-8")
        front = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else {}
    except (OSError, UnicodeDecodeError, IndexError, yaml.YAMLError):
        return None
    found = front.get("license") if isinstance(front, dict) else None
    return found if isinstance(found, str) else None


def _front(recipe: Recipe, made: Made, base: Path) -> str:
    known: dict[str, Any] = {}
    if found := licence(recipe, base):
        known["license"] = found
    if found := base_id(recipe):
        known["base_model"] = found
        relations = {"adapter": "adapter", "merged": "finetune", "gguf": "quantized"}
        known["base_model_relation"] = relations[made.kind]
    hub = [one.source.removeprefix("hub:") for one in recipe.data.sources if one.source.startswith("hub:")]
    if hub:
        known["datasets"] = hub
    known["library_name"] = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[made.kind]
    known["pipeline_tag"] = "text-classification" if recipe.stage == "reward" else _PIPELINES[made.shape]
    known["tags"] = ["ftui", recipe.stage, recipe.settings.method, *([made.kind] if made.kind == "gguf" else [])]
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=True)}---"


def _what(recipe: Recipe, made: Made) -> str:
    stage = _STAGES.get(recipe.stage, recipe.stage)
    kinds = {
        "adapter": "A peft adapter, to be loaded onto its base model",
        "merged": f"A whole model ({made.form})",
        "gguf": f"A GGUF file ({made.form}) for llama.cpp and Ollama",
    }
    return f"{kinds[made.kind]}: {_code(base_name(recipe))} after {stage} with {recipe.settings.method}."


def _use(recipe: Recipe, made: Made) -> Iterator[str]:
    yield "## Use"
    if made.kind == "gguf":
        yield _block(
            f'llama-cli -m {made.file} -cnv\nollama create {made.ollama} -f Modelfile\nollama run {made.ollama} "Hello"',
            "sh",
        )
        return
    if made.shape != "causal":
        yield _block("\n".join(_gaps(recipe, made)), "python")
        return
    loader, package = (
        ("AutoPeftModelForCausalLM", "peft") if made.kind == "adapter" else ("AutoModelForCausalLM", "transformers")
    )
    imports = "from transformers import AutoTokenizer\n" if made.kind == "adapter" else ""
    both = "AutoTokenizer, " if made.kind != "adapter" else ""
    if made.kind == "adapter" and recipe.settings.method == "bottleneck":
        yield f"peft has no bottleneck adapters: `{BROUGHT}`, which lies here, adds them. Read it, and import it first."
        yield _block(f"import {BROUGHT.removesuffix('.py')}", "python")
    yield _block(
        f"from {package} import {loader}{', ' + both.rstrip(', ') if both else ''}\n{imports}\n"
        'folder = "."  # or the id on the hub\n'
        f"model = {loader}.from_pretrained(folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        'messages = [{"role": "user", "content": "Hello"}]\n'
        "inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))",
        "python",
    )
    if words := recipe.settings.added_tokens:
        named = ", ".join(map(_code, words[:_NAMED])) + (f" and {len(words) - _NAMED:,} more" if words[_NAMED:] else "")
        rows = " The base has no rows for them, which the class above gives it." if made.kind == "adapter" else ""
        yield f"Tokens of its own: {named}.{rows}"
    if made.kind == "adapter" and base_id(recipe) is None:
        yield f"The base model is {_code(base_name(recipe))}: give its folder as `base_model_name_or_path`."


def _gaps(recipe: Recipe, made: Made) -> Iterator[str]:
    """How a model is used that fills in words, or writes what is missing."""
    loader = "AutoModelForMaskedLM" if made.shape == "masked" else "AutoModelForSeq2SeqLM"
    if made.kind == "adapter":
        yield "from peft import PeftModel"
    yield f"from transformers import AutoTokenizer, {loader}\n"
    yield 'folder = "."  # or the id on the hub'
    if made.kind == "adapter":
        yield f"model = PeftModel.from_pretrained({loader}.from_pretrained({json.dumps(base_name(recipe))}), folder)"
    else:
        yield f"model = {loader}.from_pretrained(folder)"
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    if made.shape == "masked":
        yield 'inputs = tokenizer(f"The capital of France is {tokenizer.mask_token}.", return_tensors="pt")'
        yield "print(tokenizer.decode(model(**inputs).logits[0].argmax(-1)))"
    else:
        yield 'inputs = tokenizer("The capital of France is <extra_id_0>.", return_tensors="pt")'
        yield "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=10)[0]))"


def _data(recipe: Recipe, view: RunView, sha256: str) -> Iterator[str]:
    yield "\n".join(f"- {_source(one)}" for one in recipe.data.sources)
    said = []
    if view.start:
        said.append(f"{view.start.rows:,} rows trained on")
        if view.start.eval_rows:
            said.append(f"{view.start.eval_rows:,} held out")
    if sha256:
        said.append(f"SHA-256 of the rows as trained: {_code(sha256)}")
    if said:
        yield "; ".join(said) + "."
    if recipe.data.values:
        filled = ", ".join(
            f"{_code('{{' + name + '}}')} as {_code(value)}" for name, value in recipe.data.values.items()
        )
        yield f"Placeholders filled: {filled}."
    if recipe.data.system:
        yield f"System prompt put before every conversation without one: {_code(recipe.data.system)}"


def _source(one: Source) -> str:
    """A data set's id, a preset's name or a file's name, never where the file lies."""
    if one.source.startswith(("hub:", "preset:")):
        text = one.source
    else:
        file, colon, entry = one.source.partition(".json:")
        text = f"{Path(file).name}{colon}{entry}"
    extra = [f"{label} {getattr(one, label)}" for label in ("subset", "split") if getattr(one, label)]
    if one.weight != 1:
        extra.append(f"weight {one.weight:g}")
    return _code(text) + (f" ({', '.join(map(_plain, extra))})" if extra else "")


def _recipe(recipe: Recipe, view: RunView) -> Iterator[str]:
    values = msgspec.to_builtins(recipe.settings)
    stage, settings = recipe.stage, recipe.settings
    counts = {*fields.few(stage, settings.method), *fields.expert(stage, settings.method, settings)}
    rows = [
        (name, str(value) if name != "added_tokens" else f"{len(value)}")
        for name, value in values.items()
        if value not in (None, ()) and name not in _NOT_RECIPE and name in counts
    ]
    start = view.start
    if start and start.parameters:
        share = (
            f"{start.trained_parameters:,} of {start.parameters:,} ({start.trained_parameters / start.parameters:.2%})"
        )
        rows.insert(1, ("parameters trained", share))
    if view.result:
        rows.append(("optimizer steps", str(view.result.step)))
    if recipe.adapter:
        rows.append(("started from the adapter", Path(recipe.adapter).name))
    yield _table(("setting", "value"), rows)


def _measured(view: RunView) -> Iterator[str]:
    rows = []
    if len(view.steps):
        first, last = view.steps.loss[0], view.steps.loss[-1]
        rows.append(("training loss, first and last step", f"{first:.3f} → {last:.3f}"))
    if view.evaluated:
        begun, ended = view.evaluated[0], view.evaluated[-1]
        losses = f"{begun.loss:.3f} → {ended.loss:.3f}"
        rows.append((f"loss on held-out rows, step {begun.step} and {ended.step}", losses))
    found = view.evaluation
    for word, answers in (("identity", found.identity), ("general knowledge", found.general)) if found else ():
        if answers:
            before, after = (sum(getattr(a, side) for a in answers) for side in ("before_right", "after_right"))
            total = len(answers)
            rows.append((f"{word} checks right, before and after", f"{before} of {total} → {after} of {total}"))
    yield _table(("measure", "value"), rows) if rows else "Nothing was measured in this run."
    if found and (found.identity or found.general):
        yield "Greedy answers to the checks:"
        checks = [_check(answer) for answer in (*found.identity, *found.general)]
        yield _table(("question", "before", "after"), checks)


def _scores(compared: Compared) -> Iterator[str]:
    """Base and tuned on rows with known answers, on plain questions and on pairs, as `ftui evaluate` shows them."""
    known = msgspec.structs.replace(compared.history, identity=None)  # told above
    results = [msgspec.structs.replace(compared, history=known)]
    lines = scoreboard.table(results)
    if not lines:
        return
    if compared.found is not None:
        yield f"{_plain(scoreboard.basis(compared.found))}:"
    else:
        yield f"{_plain(scoreboard.noted_where(results))}:"
    head = ("measure", *scoreboard.heads(results), "difference", "95 % within")
    yield _table(head, [(line.name, *line.cells, line.difference, line.interval) for line in lines])
    said = [scoreboard.verdict(results), *scoreboard.remarks(results)]
    if compared.found is not None:
        said.append(scoreboard.noted_where(results))
    if (tally := scoreboard.tally(results)) is not None and tally.known:
        said.append(scoreboard.told(tally))
    if compared.found is not None and compared.found.bleu:
        said.append(f"ROUGE is F1 from 0 to 1, BLEU from 0 to 100 ({compared.found.bleu})")
    yield " ".join(f"{_plain(one)}." for one in said if one)


def _check(answer: Answer) -> tuple[str, str, str]:
    mark = {True: "✓", False: "✗"}
    return (
        answer.ask,
        f"{mark[answer.before_right]} {answer.before[:120]}",
        f"{mark[answer.after_right]} {answer.after[:120]}",
    )


def _compared(made: Made) -> Iterator[str]:
    said = f"Loaded back and compared with the run: the largest difference between logits is {made.difference:.2g}"
    if made.asked:
        said += f", and {made.alike} of {made.asked} greedy answers are the same"
    yield said + "."


def _versions(recipe: Recipe, view: RunView) -> Iterator[str]:
    start = view.start
    versions = dict(start.versions) if start else {"ftui": recipe.ftui}
    if start and start.device:
        hardware = start.hardware
        memory = hardware.get("memory_total")
        extra = f", {in_words(memory)} of memory" if isinstance(memory, int) and start.device == "cpu" else ""
        yield f"Trained on {_plain(start.device)}{extra}."
    yield ", ".join(f"{_plain(name)} {_plain(version)}" for name, version in versions.items()) + "."


def _plain(text: str) -> str:
    """Foreign text that stays text in Markdown: one line, nothing of it markup."""
    shown = " ".join(safe(text, newlines=True).split())
    return "".join("\\" + letter if letter in "\\`*{}[]<>#|!~" else letter for letter in shown)


def _code(text: str) -> str:
    shown = " ".join(safe(text, newlines=True).split()).replace("`", "'")
    return f"`{shown}`"


def _block(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)
