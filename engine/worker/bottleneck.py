"""Bottleneck adapters: after each block's feed-forward part a small network of its own, down to `width` and up again.

Houlsby and others (2019) put two into each block; Pfeiffer and others (2020) found one, after the feed-forward part, as good.
Its output is added to what it reads, and its upper matrix starts at zero, so that training starts at the base model.

peft has no such method; this registers one, so that saving, loading and switching off are peft's own. The file needs torch and
peft alone: an exported adapter brings it along, to be imported before `PeftModel.from_pretrained`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig, PeftType
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import register_peft_method

NAME = "bottleneck"


def _announce() -> Any:
    """peft's list of methods is an enum, which cannot be subclassed: the new member is entered by hand, once."""
    word = NAME.upper()
    if word not in PeftType.__members__:
        member = str.__new__(PeftType, word)
        member._name_, member._value_ = word, word
        setattr(PeftType, word, member)
        PeftType._member_names_.append(word)
        PeftType._member_map_[word] = PeftType._value2member_map_[word] = member
    return PeftType(word)


_TYPE = _announce()


@dataclass
class BottleneckConfig(PeftConfig):
    """What adapter_config.json holds.

    features        numbers a token that a block's feed-forward part gives
    width           numbers a token in the middle
    target_modules  what the feed-forward part is called in a block
    trainable_token_indices  rows of the embedding and the head that learn, too
    """

    features: int = 0
    width: int = 32
    target_modules: list[str] | None = None
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "trained whole beside the adapters"})
    trainable_token_indices: dict[str, list[int]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = _TYPE


class Bottleneck(torch.nn.Module, BaseTunerLayer):
    """A feed-forward part with an adapter behind it: y + up(relu(down(y)))."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: torch.nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = torch.nn.ModuleDict()
        self.bottleneck_up = torch.nn.ModuleDict()

    def add(self, name: str, config: BottleneckConfig) -> None:
        down, up = torch.nn.Linear(config.features, config.width), torch.nn.Linear(config.width, config.features)
        torch.nn.init.zeros_(up.weight)
        torch.nn.init.zeros_(up.bias)
        place = next(self.base_layer.parameters()).device
        self.bottleneck_down[name], self.bottleneck_up[name] = down.to(place), up.to(place)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        given: torch.Tensor = self.base_layer(*inputs, **named)
        if self.disable_adapters:
            return given
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down: Any = self.bottleneck_down[name]
                up: Any = self.bottleneck_up[name]
                inner = torch.relu(down(self._cast_input_dtype(given, down.weight.dtype)))
                given = given + up(inner).to(given.dtype)
        return given


class BottleneckModel(BaseTuner):
    prefix = f"{NAME}_"
    tuner_layer_cls = Bottleneck
    target_module_mapping: dict[str, list[str]] = {}

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: torch.nn.Module,
        target_name: str,
        parent: torch.nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, Bottleneck):
            target.add(adapter_name, peft_config)
            return
        made = Bottleneck(target)
        made._active_adapter = adapter_name
        made.add(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            made.requires_grad_(False)
        setattr(parent, target_name, made)


register_peft_method(name=NAME, config_cls=BottleneckConfig, model_cls=BottleneckModel)
