"""A model's tokenizer and chat template: `tokenizers` and jinja, no transformers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.data import chat_template, rendering
from engine.data.chat_template import ChatTemplate
from engine.data.convert import Example, Message
from engine.data.estimate import Estimate, estimate
from engine.data.measure import END_WITHIN, Measured, located
from engine.data.rendering import Rendered
from engine.errors import Exit, FtuiError
from engine.models import added_tokens, shape

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend

__all__ = ["AnyTokenizer", "Estimate", "Rendered", "Tokenizer", "Tokens", "estimate", "load"]

UNTRAINED = -100

# What byte-level vocabularies write for each byte: itself where it can be seen, else the next character after U+00FF.
_SEEN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = {chr(byte): byte for byte in _SEEN} | {
    chr(256 + at): byte for at, byte in enumerate(byte for byte in range(256) if byte not in _SEEN)
}


class Tokens(Struct):
    """`labels` is `input_ids` where there is a loss and -100 elsewhere; both are as long as the row."""

    input_ids: list[int]
    labels: list[int]


class Tokenizer:
    """Text to token ids and back, and examples to both.

    Ids are those of transformers' `apply_chat_template(…, sanitize_control_tokens=True)` for special tokens: a
    control token that stands in a row's own text is encoded as the characters it is made of.

    file     its tokenizer.json
    asked    words that the run wants to be tokens, and `added` the ids of those that were none
    special  ids of control tokens
    opening  what the tokenizer itself puts before a bare text, and `closing` behind it
    quick    what `counting` makes of it, once
    """

    exact = True

    def __init__(
        self,
        backend: Backend,
        template: ChatTemplate | None,
        tokens: dict[str, str],
        file: Path,
        put_back: bool = False,
        added: Sequence[int] = (),
        asked: Sequence[str] = (),
    ) -> None:
        """`put_back`: a text that is cut keeps what the tokenizer puts behind it, as pre-training by gaps has it."""
        self.name = file.parent.name
        self.file = file
        self.added, self.asked = list(added), list(asked)
        self.quick: object = None
        self.has_template = template is not None
        self._backend = backend
        self._template = template
        self._tokens = tokens
        self._end = tokens.get("eos_token", "")
        self.eos_id: int | None = backend.token_to_id(self._end) if self._end else None
        padding = tokens.get("pad_token")
        self.pad_id: int | None = backend.token_to_id(padding) if padding else self.eos_id
        beside = backend.get_added_tokens_decoder()  # the vocabulary
        self._added = beside.keys()
        self._byte_level = backend.decoder is not None and b'"ByteLevel"' in backend.decoder.__getstate__()
        self.special = {number for number, token in beside.items() if token.special}
        self._words = {beside[number].content for number in self.special}
        words = sorted(self._words, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, words)) or "(?!)")
        self.opening, self.closing = _around(backend)
        self._put_back = put_back

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; nothing is put before or after it, and control tokens in it count as such."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def render(self, example: Example) -> Rendered:
        """The text that the model sees; of a preference pair with its chosen answer.

        Raises FtuiError(MODEL_UNSUPPORTED) if the chat template refuses the row.
        """
        closed = example.messages is None and self.eos_id in self.closing  # the tokenizer itself ends a bare text
        return rendering.render(example, self._template, self._control, "" if closed else self._end)

    def render_pair(self, example: Example) -> tuple[Rendered, Rendered]:
        """The chosen and the rejected side of a preference pair. Raises as `render`."""
        return rendering.render_pair(example, self._template, self._control, self._end)

    def prompt(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None = None) -> list[int]:
        """Ids of a conversation up to where the next answer begins: what chat gives the model."""
        return self._encoded(rendering.prompt(messages, self._template, self._control, self._end, tools))[0]

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The text whose ids `prompt` gives."""
        return rendering.prompt(messages, self._template, self._control, self._end).text

    def tokenize(self, example: Example) -> Tokens:
        """Ids and labels of the whole example, not cut."""
        rendered = self.render(example)
        ids, offsets = self._encoded(rendered)
        labels = [UNTRAINED] * len(ids)
        for start, stop in self._located(rendered, offsets):
            labels[start:stop] = ids[start:stop]
        return Tokens(ids, labels)

    def split(self, rendered: Rendered) -> list[tuple[str, bool, bool]]:
        """(its own text, has a loss?, control token?) for each token; half characters as in "\\xe4"."""
        ids, offsets = self._encoded(rendered)
        trained = set[int]().union(*(range(*span) for span in self._located(rendered, offsets)))
        return [(self._own_text(one), at in trained, one in self.special) for at, one in enumerate(ids)]

    def measure(self, rendered: Sequence[Rendered]) -> list[Measured]:
        """Each text in tokens, and where its trained tokens lie. Encoded together, on all cores."""
        encodings: dict[int, Encoding] = {}
        for special in (False, True):
            alike = [at for at, one in enumerate(rendered) if one.special is special and not one.literal]
            texts = [rendered[at].text for at in alike]
            encodings |= zip(alike, self._backend.encode_batch(texts, add_special_tokens=special), strict=True)
        found = []
        for at, one in enumerate(rendered):
            ids, offsets = (encodings[at].ids, encodings[at].offsets) if at in encodings else self._encoded(one)
            found.append(self._measured(ids, self._located(one, offsets)))
        return found

    @property
    def refused(self) -> set[str]:
        """What may make a chat template or the tokenizer treat a text in a way of its own: all that they look for."""
        return self._words | (chat_template.looked_for(self._template.source) if self._template else set())

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def dated(self) -> bool:
        """True if the chat template writes the day's date."""
        return self._template is not None and "strftime_now" in self._template.source

    @property
    def source(self) -> bytes:
        """Its tokenizer.json, with what the run adds."""
        return self._backend.to_str().encode() if self.added else self.file.read_bytes()

    @property
    def added_words(self) -> list[str]:
        """The tokens that the run adds."""
        return [word for number in self.added if (word := self._backend.id_to_token(number)) is not None]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides how an example becomes tokens: the vocabulary, the chat template, the end token."""
        digest = hashlib.sha256(self.source)
        source = self._template.source if self._template else None
        digest.update(repr((source, sorted(self._tokens.items()), self._put_back)).encode())
        return digest.hexdigest()

    def _located(self, rendered: Rendered, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The trained spans in tokens. What the tokenizer itself puts behind a text is learned with the text's end."""
        whole = len(offsets)
        own = whole - len(self.closing) if rendered.special else whole
        spans = located(rendered.trained, offsets[:own] if own < whole else offsets)
        if own < whole and spans and spans[-1][1] == own:
            spans[-1] = spans[-1][0], whole
        return spans

    def _measured(self, ids: list[int], spans: list[tuple[int, int]]) -> Measured:
        if not spans:
            return Measured(ids, len(ids), [], len(ids), closed=True)
        start, stop = spans[-1]
        if self._put_back and stop == len(ids) and self.closing:
            return Measured(ids, len(ids), spans, 0, closed=True)
        tail = range(stop - 1, max(start, stop - END_WITHIN) - 1, -1)
        end = next((at + 1 for at in tail if ids[at] in self.special), None)
        return Measured(ids, len(ids), spans, stop if end is None else end, closed=end is not None)

    def _encoded(self, rendered: Rendered) -> tuple[list[int], list[tuple[int, int]]]:
        if not rendered.literal:
            encoding = self._backend.encode(rendered.text, add_special_tokens=rendered.special)
            return encoding.ids, encoding.offsets
        opening, closing = (self.opening, self.closing) if rendered.special else ([], [])
        ids = [*opening]
        offsets = [(0, 0)] * len(opening)
        at = 0
        for start, stop in [*rendered.literal, (len(rendered.text), len(rendered.text))]:
            if at < start:
                self._append(rendered.text, at, start, ids, offsets)
            if start < stop:
                plain = self._as_characters(rendered.text[start:stop])
                ids.extend(plain)
                offsets.extend([(start, stop)] * len(plain))
            at = stop
        return [*ids, *closing], [*offsets, *[(0, 0)] * len(closing)]

    def _append(self, text: str, start: int, stop: int, ids: list[int], offsets: list[tuple[int, int]]) -> None:
        """Encode a stretch of text and append it."""
        piece = text[start:stop]
        if start == 0:
            encoding = self._backend.encode(piece, add_special_tokens=False)
            ids.extend(encoding.ids)
            offsets.extend(encoding.offsets)
            return
        # After a line end, so that SentencePiece puts no space before it (as transformers does), unless they merge.
        newline = self._backend.encode("\n", add_special_tokens=False).ids
        encoding = self._backend.encode("\n" + piece, add_special_tokens=False)
        skip, shift = len(newline), start - 1
        if encoding.ids[:skip] != newline:
            encoding = self._backend.encode(piece, add_special_tokens=False)
            skip, shift = 0, start
        ids.extend(encoding.ids[skip:])
        offsets.extend((begin + shift, end + shift) for begin, end in encoding.offsets[skip:])

    def _own_text(self, number: int) -> str:
        """A token as the characters or bytes that it stands for."""
        token = self._backend.id_to_token(number) or ""
        if number in self._added:
            return token
        if self._byte_level:
            return bytes(_BYTES[one] for one in token if one in _BYTES).decode(errors="backslashreplace")
        if one_byte := re.fullmatch("<0x([0-9A-F]{2})>", token):
            return bytes.fromhex(one_byte[1]).decode(errors="backslashreplace")
        return token.replace("▁", " ")

    def _as_characters(self, token: str) -> list[int]:
        """A control token as plain text: the tokenizer's steps without its table of added tokens."""
        backend = self._backend

        def run(text: str) -> list[int]:
            if backend.normalizer is not None:
                text = backend.normalizer.normalize_str(text)
            pieces = [text]
            if backend.pre_tokenizer is not None:
                pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
            return [part.id for piece in pieces for part in backend.model.tokenize(piece)]

        def after_newline(text: str) -> list[int]:
            newline, ids = run("\n"), run("\n" + text)
            return ids[len(newline) :] if ids[: len(newline)] == newline else run(text)

        control = backend.token_to_id(token)
        ids = after_newline(token)
        if control in ids:  # its vocabulary has the control token as an ordinary piece, so give it less at a time
            ids = [part for character in token for part in after_newline(character)]
        if not ids or control in ids:
            raise FtuiError(
                Exit.MODEL_UNSUPPORTED,
                f"a row holds {token}, and this model's tokenizer cannot write it as plain text",
                next_step="take it out of the rows",
            )
        return ids


AnyTokenizer = Tokenizer | Estimate


def _around(backend: Backend) -> tuple[list[int], list[int]]:
    """What the tokenizer itself puts before a text, and behind it."""
    encoding = backend.encode("a", add_special_tokens=True)
    own = [at for at, special in enumerate(encoding.special_tokens_mask) if not special]
    return (encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]) if own else (encoding.ids, [])


def load(folder: Path, added: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer of a model's folder, with the words that the run makes tokens of.

    Raises FtuiError(MODEL_UNSUPPORTED) if there is none that can be read, RECIPE_INVALID as `added_tokens.add`.
    """
    from tokenizers import Tokenizer as Backend

    folder = Path(folder)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise FtuiError(
            Exit.MODEL_UNSUPPORTED,
            "the model has no tokenizer.json",
            str(folder),
            "save it once with AutoTokenizer.from_pretrained(…).save_pretrained(…) from transformers",
        )
    try:
        backend = Backend.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for whatever is wrong in the file
        reason = " ".join(str(error).split())[:200]
        raise FtuiError(Exit.MODEL_UNSUPPORTED, f"the tokenizer cannot be read: {reason}", str(file)) from None
    backend.no_truncation()
    backend.no_padding()
    new = added_tokens.add(backend, added)
    config = _json(folder / "tokenizer_config.json")
    tokens = _special_tokens(folder, config, backend)
    source = chat_template.find(folder, config)
    template = ChatTemplate(source, tokens, str(folder)) if source is not None else None
    put_back = shape.of(_json(folder / "config.json")) != "causal"
    return Tokenizer(backend, template, tokens, file, put_back, new, added)


def _special_tokens(folder: Path, config: dict[str, Any], backend: Backend) -> dict[str, str]:
    """Special tokens by name, from the tokenizer's configuration; else those that the model's configuration numbers."""
    found: dict[str, str] = {}
    for given in (_json(folder / "special_tokens_map.json"), config):
        for name, value in given.items():
            text = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(text, str):
                found[name] = text
    model = _json(folder / "config.json")
    for name in ("bos_token", "eos_token", "pad_token"):
        number = model.get(f"{name}_id")
        number = number[0] if isinstance(number, list) and number else number
        if name not in found and isinstance(number, int) and (text := backend.id_to_token(number)) is not None:
            found[name] = text
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise FtuiError(Exit.MODEL_UNSUPPORTED, f"{file.name} cannot be read: {error}", str(file)) from None
    return value if isinstance(value, dict) else {}
