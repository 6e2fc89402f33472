"""The real worker, which writes down what it must never do: unpickle, run a shell, listen on the network, render a model's
chat template outside of the sandbox. Python's audit hooks see all of it, in libraries too; they cannot be taken off again."""

from __future__ import annotations

import os
import sys
from typing import Any

WATCHED = (
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.bind",
    "socket.connect",
)


def watch() -> None:
    log = os.open(os.environ["FTUI_AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED:
            words = " ".join(map(repr, arguments))[:300].replace("\n", " ")
            os.write(log, f"{event} {words}\n".encode())

    sys.addaudithook(hook)
    os.write(log, b"watching\n")


def main() -> int:
    watch()
    from transformers import PreTrainedTokenizerBase

    def outside(*_: object, **__: object) -> None:
        raise AssertionError("a chat template was rendered outside of the sandbox")

    PreTrainedTokenizerBase.apply_chat_template = outside  # type: ignore[method-assign]
    from engine.worker.__main__ import main as work

    return work()


if __name__ == "__main__":
    sys.exit(main())
