"""The headers of safetensors files: names, shapes and types of the weights, without loading any.

A header is trusted with nothing: its size is capped, its shapes are checked, and what it promises must fit the file.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from engine.errors import Exit, FtuiError

_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
_INDEX_LIMIT = 64 * 1024**2
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_HEADS = (
    *("lm_head.weight", "embed_out.weight", "output.weight"),
    *("cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight", "decoder.weight"),
)
# Weights that some checkpoints store twice: the copy, and what it is a copy of.
_COPIES = {
    "encoder.embed_tokens.weight": "shared.weight",
    "decoder.embed_tokens.weight": "shared.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "lm_head.decoder.bias": "lm_head.bias",
}
# What BERT was pre-trained with beside its head for masked words: nothing that fills in words needs it.
_OTHER_HEADS = ("pooler", "seq_relationship")
# Tables and masks that some checkpoints store beside their parameters.
_BUFFERS = ("rotary_emb.inv_freq", ".attn.masked_bias", ".attention.masked_bias", "embeddings.position_ids")

Dimension = Annotated[int, Meta(ge=0, le=1 << 31)]


class Tensor(Struct, frozen=True):
    """One weight: `shape` as stored, `dtype` in the file's own word ("BF16")."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


class _Entry(Struct):
    dtype: str
    shape: list[Dimension]
    data_offsets: tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)]]


class _Index(Struct):
    weight_map: dict[str, str]


def tensors(folder: Path, *, masked: bool = False) -> list[Tensor]:
    """All parameters of the model in `folder`, from one file or from the shards its index names; a copy does not count.

    masked  of a model that fills in words, only what that takes
    Raises FtuiError(MODEL_NO_WEIGHTS) where there are none, or not all of them, or only pickled ones.
    """
    found: dict[str, Tensor] = {}
    for path in _files(folder):
        for tensor in header(path):
            found[tensor.name] = tensor
    parameters = [
        tensor
        for tensor in found.values()
        if not _is_buffer(tensor)
        and _COPIES.get(tensor.name) not in found
        and not (masked and any(part in _OTHER_HEADS for part in tensor.name.split(".")))
    ]
    if not parameters:
        raise FtuiError(Exit.MODEL_NO_WEIGHTS, "the weights file holds no weights", str(folder), _AGAIN)
    return parameters


def header(path: Path) -> list[Tensor]:
    """What the safetensors file `path` holds. Raises FtuiError(MODEL_NO_WEIGHTS) when it is damaged or cut off."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if start.startswith(b"version "):
                raise _damaged(path, "is a Git LFS pointer, the weights themselves were never fetched", "git lfs pull")
            if len(start) < 8 or length > min(_HEADER_LIMIT, size - 8):
                raise _damaged(path, "is no safetensors file, or only its beginning")
            raw = file.read(length)
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from None
    try:
        entries: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
        entries.pop("__metadata__", None)
        parsed = {name: msgspec.convert(entry, _Entry) for name, entry in entries.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _damaged(path, "has a damaged header") from None
    if max((entry.data_offsets[1] for entry in parsed.values()), default=0) > size - 8 - length:
        raise _damaged(path, "is cut off: it promises more weights than it holds")
    return [Tensor(name, tuple(entry.shape), entry.dtype) for name, entry in parsed.items()]


def is_head(name: str) -> bool:
    """Whether this weight is an output head of its own (not tied to the input embeddings)."""
    return name in _HEADS


def main_dtype(parameters: list[Tensor]) -> str:
    """The type most of the numbers are stored in, in torch's word ("bfloat16")."""
    counted: Counter[str] = Counter()
    for tensor in parameters:
        counted[tensor.dtype] += tensor.size
    word = counted.most_common(1)[0][0]
    return _DTYPES.get(word, word.lower())


_AGAIN = "get the model's files again"


def _files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        names = _indexed(index)
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise FtuiError(
                Exit.MODEL_NO_WEIGHTS,
                f"{len(missing)} of {len(names)} weight files are missing, the first is {missing[0]}",
                str(folder),
                _AGAIN,
            )
        return [folder / name for name in names]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    pickled = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickled:
        raise FtuiError(
            Exit.MODEL_NO_WEIGHTS,
            f"the weights are pickled ({pickled[0]}), and opening a pickle can run any code it holds",
            str(folder),
            "get the model's safetensors files, or convert these on a machine you can lose",
        )
    raise FtuiError(
        Exit.MODEL_NO_WEIGHTS,
        "this model has its config.json but no weights",
        f"{folder}: looked for {_SINGLE} and {_INDEX}",
        "fetch the weights into this folder, or pick another model",
    )


def _indexed(index: Path) -> list[str]:
    """The shard names in an index, in order. Each must be a plain name in the same folder."""
    try:
        with index.open("rb") as file:
            parsed = msgspec.json.decode(file.read(_INDEX_LIMIT), type=_Index)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _damaged(index, "is damaged") from None
    names = sorted(set(parsed.weight_map.values()))
    for name in names:
        if "/" in name or "\\" in name or name.startswith(".") or not name.endswith(".safetensors"):
            raise _damaged(index, f"names {name!r}, which is no safetensors file beside it")
    return names


def _is_buffer(tensor: Tensor) -> bool:
    # GPT-2 stores its causal mask as attn.bias with four dimensions; a real bias has one.
    return tensor.name.endswith(_BUFFERS) or (tensor.name.endswith(".attn.bias") and len(tensor.shape) == 4)


def _damaged(path: Path, what: str, step: str = _AGAIN) -> FtuiError:
    return FtuiError(Exit.MODEL_NO_WEIGHTS, f"{path.name} {what}", str(path), step)
