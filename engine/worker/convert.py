"""`python -m engine.worker.convert SOURCE.gguf FOLDER`: dequantise a GGUF file into safetensors (fp32).

The last line on stderr is the reason when it fails.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> int:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        with tempfile.TemporaryDirectory(prefix="ftui-gguf-") as alone:
            # In a folder of its own: what lies beside the file (configs, adapters, code) is none of its business.
            Path(alone, "model.gguf").symlink_to(source.absolute())
            model = AutoModelForCausalLM.from_pretrained(
                alone,
                gguf_file="model.gguf",
                quantization_config=GgufConfig(dequantize=True),  # a packed GGUF can neither be trained nor saved
                dtype=torch.float32,
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf", trust_remote_code=False)
        model.config._name_or_path = source.stem
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    except Exception as error:
        print(f"\n{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
