"""LoRA adapters on the top layers, through PEFT; and the top layers as a module of their own."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from shared.payload import Tensors, dense
from shared.plan import ModelPlan
from shared.prefix import Bert, attention_mask
from shared.seeding import torch_stream

SELF_ATTENTION = {"query", "key", "value"}


def attach(model: Bert, plan: ModelPlan, split: int, seed: int) -> nn.Module:
    """Put adapters on the layers from ``split`` up; B is zero, so the model still equals the base.

    A is drawn from the run's seed: every client gets the same one, which is what makes averaging B exact.
    """
    from peft import LoraConfig, get_peft_model  # seconds to import: ``shared.prefix._transformers``

    layers = "|".join(str(layer) for layer in range(split, len(model.encoder.layer)))
    names = "|".join(_inside_layer(target) for target in plan.targets)
    config = LoraConfig(
        r=plan.rank,
        lora_alpha=plan.alpha,
        lora_dropout=plan.lora_dropout,
        target_modules=rf"encoder\.layer\.({layers})\.({names})",
        bias="none",
    )
    wrapped: nn.Module = get_peft_model(model, config)
    for module in wrapped.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            # Autocast chooses the precision; PEFT would widen each input to float32 only to have it narrowed again.
            setattr(module, "cast_input_dtype_enabled", False)  # noqa: B010 - PEFT's types do not tell of it
    for name, parameter in sorted(lora_parameters(wrapped)):
        if ".lora_A." in name:
            bound = 1 / math.sqrt(parameter.shape[1])
            draw = torch.rand(parameter.shape, generator=torch_stream(seed, "lora", name))
            parameter.data.copy_((2 * draw - 1) * bound)
        else:
            parameter.data.zero_()
    return wrapped


def _inside_layer(target: str) -> str:
    return rf"attention\.self\.{target}" if target in SELF_ATTENTION else target.replace(".", r"\.")


def lora_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Adapter tensors under the names PEFT saves them with: ``...query.lora_A.weight``."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            yield name.replace(".default.", "."), parameter


class TopLayers(nn.Module):
    """The adapted layers: hidden states at the split -> one vector per text (mean over its tokens)."""

    def __init__(self, wrapped: nn.Module, split: int) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.split = split

    @property
    def bert(self) -> Bert:
        """The base inside PEFT's wrapping."""
        return self.wrapped.base_model.model  # type: ignore[union-attr]

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, width) and (rows, tokens) -> (rows, width), float32, length 1."""
        hidden = states
        # The fused kernel's way back is several times slower than plain products on texts of some tens of tokens.
        with sdpa_kernel(SDPBackend.MATH if torch.is_grad_enabled() else SDPBackend.FLASH_ATTENTION):
            for layer in self.bert.encoder.layer[self.split :]:
                # Adapters may be anybody's: what they make of a place without a token must not come into the others,
                # and 0 times a number without bound is none.
                hidden = layer(hidden.masked_fill(~mask[..., None], 0), attention_mask(mask))
        hidden = hidden.float().masked_fill(~mask[..., None], 0)
        pooled = hidden.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return nn.functional.normalize(pooled, dim=1)

    def train(self, mode: bool = True) -> "TopLayers":
        """Only the adapters follow the mode (their dropout, their hooks): the base runs as in the cache."""
        super().train(False)
        for name, module in self.named_modules():
            if ".lora_" in name:
                module.training = mode
        return self


def without_adapters(top: TopLayers) -> TopLayers:
    """The same layers as the base has them: its weights are shared, the adapters are copies and switched off."""
    base = {id(value): value for name, value in top.named_parameters() if ".lora_" not in name}
    plain = copy.deepcopy(top, base)
    plain.wrapped.base_model.disable_adapter_layers()  # type: ignore[union-attr, operator]
    return plain


def save_adapter(model: nn.Module, tensors: Tensors, folder: Path) -> None:
    """Write adapters in PEFT's own format: adapter_config.json + adapter_model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"].to_dict()  # type: ignore[union-attr, index]
    # The base travels by fingerprint in the manifest; a path of this machine says nothing elsewhere.
    config["base_model_name_or_path"] = None
    text = json.dumps({key: _plain(value) for key, value in sorted(config.items())}, indent=2)
    (folder / "adapter_config.json").write_text(text)
    save_file(dense(tensors), folder / "adapter_model.safetensors")


def _plain(value: object) -> object:
    if isinstance(value, set | frozenset | tuple):
        return sorted(value)
    return value.value if hasattr(value, "value") else value
