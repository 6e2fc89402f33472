"""`python -m engine.worker.convert SOURCE.gguf FOLDER`: dequantise a GGUF file into safetensors (fp32).

The last line on stderr is the reason when it fails.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),  # a packed GGUF can neither be trained nor saved
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model.config._name_or_path = source.stem
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    except Exception as error:
        print(f"\n{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
