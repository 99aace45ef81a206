"""Low-rank adapters (Hu et al. 2021): W x becomes W x + B A x, and only A and B are trained. --lora-rank R.

A (R, in) begins random and B (out, R) zero, so a run begins with the unchanged model. `linear_layers` says which layers
get them. alpha = R, so the product is added as it is: another factor would be a second --lr.

A checkpoint is the merged model, W + B A, which loads like any other; its adapter/ holds A and B, in peft's format. A
resumed run reads W from --model again, and A and B from there: the merged sum is rounded, and W can't be recovered.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of names in peft's files; in the model they have ".default" instead


def linear_layers(model) -> dict[str, torch.nn.Module]:
    """The layers that get an adapter, by name: not the output layer, experts, frozen ones as in a vision tower, or the
    last of a Mamba mixer, whose kernels read its weight and not the layer."""
    kinds, head = (torch.nn.Linear, Conv1D), model.get_output_embeddings()
    found = {name: m for name, m in model.named_modules() if type(m) in kinds and m is not head}
    mixers = {f"{name}.out_proj" for name, m in model.named_modules() if hasattr(m, "conv1d")}
    return {name: m for name, m in found.items() if m.weight.requires_grad and name not in mixers}


def add(model, rank: int, seed: int) -> None:
    """Inserts adapters into the model, in its dtype, and freezes all else. A is the same on every rank."""
    import peft

    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2 stores W as (in, out)
    options = {"r": rank, "lora_alpha": rank, "target_modules": [*linear_layers(model)], "fan_in_fan_out": transposed}
    kind = model.config.model_type
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.config.model_type = ""  # or peft adapts experts too, which `split` can't merge
        peft.inject_adapter_in_model(peft.LoraConfig(**options, task_type="CAUSAL_LM"), model)
        model.config.model_type = kind


def load(model, folder: Path) -> None:
    """Loads a checkpoint's adapters into the model's. ValueError, in one line: it has none, or of other shapes."""
    if not (folder / WEIGHTS).exists():
        raise ValueError(f"--lora-rank: {folder.parent} holds no adapter: all of its weights were trained")
    mine = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    saved = {_in_model(name): x for name, x in load_file(folder / WEIGHTS).items()}
    if {name: x.shape for name, x in saved.items()} != mine:
        raise ValueError(f"--lora-rank: the adapter of {folder} has another rank, or is of another --model")
    model.load_state_dict(saved, strict=False)  # all else stays W


def split(model, weights: dict[str, torch.Tensor], base: str):
    """The full state_dict of a model with adapters -> that of the merged model, and a function that writes the adapter
    into a folder. base: the model that it was added to."""
    adapter = {name: x.detach() for name, x in weights.items() if ".lora_" in name}
    merged = {}
    for name, w in weights.items():
        layer, of_layer, kind = name.rpartition(".base_layer.")
        if of_layer and kind == "weight":
            product = adapter[_in_model(f"{layer}.lora_B.weight")] @ adapter[_in_model(f"{layer}.lora_A.weight")]
            w = w.detach() + (product.T if model.get_submodule(layer).fan_in_fan_out else product)
        if name not in adapter:
            merged[f"{layer}.{kind}" if of_layer else name] = w
    return merged, partial(_write, model.peft_config["default"], adapter, base)


def _write(config, adapter: dict[str, torch.Tensor], base: str, folder: Path) -> None:
    config = replace(config, base_model_name_or_path=str(base), inference_mode=True)
    config.target_modules = sorted(config.target_modules)  # a set's order differs between processes
    config.save_pretrained(folder)
    files = {PREFIX + name.replace(".default", ""): x.contiguous() for name, x in adapter.items()}
    save_file(files, folder / WEIGHTS, metadata={"format": "pt"})


def _in_model(name: str) -> str:
    """model.layers.0.mlp.up_proj.lora_A.weight, as in a file, also with its prefix -> the name in the model."""
    return name.removeprefix(PREFIX).removesuffix(".weight") + ".default.weight"
