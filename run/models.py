"""The models of a run: what is trained, on all ranks, and what only compared methods need; its optimizer."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from engine import lora
from engine.faster import fuse_norms, halve
from engine.float64 import keep_float64
from engine.methods import Critic, Method
from engine.optimizer import make_optimizer
from engine.parallel import spread
from engine.policy import Policy
from run import checkpoint
from run.flags import BUILT_INS, fail, user_input
from run.journal import say
from run.ranks import decoder, device_name, is_gpu, suit
from tasks.pictures import Processor


class Trained(NamedTuple):
    """What a run trains and saves, and what it is compared with."""

    model: torch.nn.Module
    policy: torch.nn.Module  # the model as Policy, spread over all ranks
    tokenizer: object
    optimizer: torch.optim.Optimizer
    method: Method
    processor: Processor | None = None  # of pictures; None for a model of text
    reference: Policy | None = None  # of a KL term: the model as the run began
    critic: torch.nn.Module | None = None  # PPO's
    decode: Callable | None = None  # the loop over tokens of rollout


def load_trained(args, folder, tokenizer, processor, kind: str, resumed: Path | None, device: torch.device) -> Trained:
    """The models of a run; kind is "ddp" or "fsdp". The optimizer has no state yet."""
    if is_gpu(device):
        slow = "; products without TF32 are about ten times slower than with --dtype bfloat16"
        say(f"{device_name(device)}, --dtype {args.dtype}{slow if args.dtype == 'float32' else ''}")
    model = load_adapted(args, folder, resumed, device)
    policy = make_policy(model, kind, args, processor)
    if args.lora_rank and args.dtype == "bfloat16" and kind == "ddp":  # shards have one dtype
        halve(model, frozen_only=True)
    reference, critic = make_compared(args, resumed, device, processor)
    rates = {"lr": args.lr, "weight_decay": args.weight_decay, "critic_lr_factor": args.critic_lr_factor}
    optimizer = make_optimizer(model, critic, kind=args.optimizer, fused=is_gpu(device), **rates)
    method = Method(**{field.name: getattr(args, field.name) for field in fields(Method)})
    return Trained(model, policy, tokenizer, optimizer, method, processor, reference, critic, decoder(device, say))


def load_adapted(args, folder, resumed: Path | None, device: torch.device):
    """The folder's model; with --lora-rank the run's first model and adapters, new or from the checkpoint."""
    if resumed and not args.lora_rank and (resumed / checkpoint.ADAPTER).exists():
        fail(f"--lora-rank 0: the run of {resumed} trains adapters; leave the flag out")
    model = load_model(args, first_model(args) if args.lora_rank else folder, device)
    if args.lora_rank:
        lora.add(model, args.lora_rank, args.seed)
        if resumed:
            user_input(lora.load, model, resumed / checkpoint.ADAPTER)
    return model


def first_model(args) -> str | Path:
    """The model that the run began with."""
    return BUILT_INS[args.model].ensure(args.seed) if args.model in BUILT_INS else args.model


def load_model(args, folder, device: torch.device):
    """The model in float32 (float64 with --dtype float64), without dropout: with it, another policy would be scored."""
    config = pretrained(AutoConfig, folder)
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):  # also in a text_config
        for name, value in vars(part).copy().items() if part else ():
            if "drop" in name and isinstance(value, float):
                setattr(part, name, 0.0)
    options = {"dtype": torch.float64 if args.dtype == "float64" else torch.float32, "config": config}
    model = pretrained(model_class(config), folder, output_loading_info=True, **options).to(device)
    if args.dtype == "float64":
        keep_float64(model)
    if is_gpu(device):
        fuse_norms(model)
    if args.freeze_vision:
        freeze_vision(model, args.model)
    if args.gradient_checkpointing:
        user_input(model.activation_checkpointing_enable)
    return model.train()


def model_class(config):
    """The class that loads a configuration's model: with pictures, if it reads any."""
    return AutoModelForImageTextToText if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING else AutoModelForCausalLM


def freeze_vision(model, name: str) -> None:
    """Leaves the vision tower as it is: the parts that the model's vision_config describes."""
    vision = getattr(model.config, "vision_config", None)
    towers = [module for module in model.modules() if vision is not None and getattr(module, "config", None) is vision]
    if not towers:
        fail(f"--freeze-vision: {name} has no vision tower; leave the flag out")
    for tower in towers:
        tower.requires_grad_(False)


def make_policy(model, kind: str, args, processor=None) -> torch.nn.Module:
    """The trained policy on all ranks, with a line on each saving that this model does not allow."""
    policy = suit(Policy(model, args.temperature, args.dtype, processor and processor.remembered))
    name = type(model).__name__
    if not policy.sliced:
        say(f"{name}: logits are more than a linear layer of hidden states, so they are made whole, not in slices")
    if not policy.shared:
        say(f"{name}: completions can't continue from a prompt's cache, so a prompt is forwarded once per sample")
    return spread(policy, kind)


def make_compared(args, resumed: Path | None, device: torch.device, processor) -> tuple:
    """The reference of a KL term, the model as the run began; and PPO's critic. None for GPG."""
    reference, critic = None, None
    if args.kl_coef:
        first = load_model(args, first_model(args), device).eval()
        reference = suit(Policy(first, args.temperature, args.dtype, processor and processor.remembered))
        reference.requires_grad_(False)
    if args.baseline == "critic":
        critic = Critic(load_model(args, first_model(args), device), args.dtype)
        if resumed:
            critic.load_state_dict(load_file(resumed / checkpoint.CRITIC))
        critic = spread(critic, "ddp")
    return reference, critic


def pretrained(kind, name: str | Path, **options):
    """The result of a class's from_pretrained for a folder or hub name, with all weights. A failure is one line."""
    try:
        loaded = kind.from_pretrained(name, **options)
    except Exception as error:  # those of the hub, of configurations and of weights have no ancestor in common
        reason = str(error).strip().partition("\n")[0]
        fail(f"--model {name}: no causal LM could be read ({reason}); give its folder or its hub name")
    if options.get("output_loading_info"):
        loaded, info = loaded
        if info["missing_keys"]:  # they would be random
            fail(f"--model {name}: weights are missing, {sorted(info['missing_keys'])[0]} for one; give a whole model")
    return loaded
