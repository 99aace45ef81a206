"""The models of a run: what is trained, on all ranks, and what only compared methods need; its optimizer."""

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils.peft_utils import find_adapter_config_file

from engine import lora
from engine.faster import fuse_norms, halve
from engine.float64 import keep_float64
from engine.methods import Critic, Method
from engine.optimizer import make_optimizer
from engine.output_layer import token_logprobs
from engine.parallel import spread
from engine.policy import Policy, autocast, unreached
from rollout import eval_mode, rollout
from run import checkpoint, faults
from run.flags import fail, user_input
from run.journal import say
from run.ranks import decoder, device_name, has_bfloat16, is_gpu, suit
from tasks import addition, lengths, shapes
from tasks.data import seek_hub
from tasks.pictures import Processor


def shapes_of(kind: str) -> SimpleNamespace:
    """The built-in visual task with problems of one kind alone."""
    return SimpleNamespace(
        **vars(shapes) | {"problems": lambda part: [x for x in shapes.problems(part) if x["kind"] == kind]}
    )


# every --model that needs no download
BUILT_INS = {"tiny": addition, "tiny-lengths": lengths, "tiny-pictures": shapes}
BUILT_INS |= {"tiny-count": shapes_of("count"), "tiny-find": shapes_of("find")}


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
    frozen: str | None = None  # a hash of the weights that stay: those under adapters, and the reference's


def load_trained(args, folder, tokenizer, processor, problems, kind: str, resumed, device: torch.device) -> Trained:
    """The models of a run; kind is "ddp" or "fsdp". The optimizer has no state yet."""
    if is_gpu(device):
        slow = "; products without TF32 are about ten times slower than with --dtype bfloat16"
        slow = slow if has_bfloat16() else ": it has no bfloat16, and float16 is not offered (docs/gpu.md)"
        say(f"{device_name(device)}, --dtype {args.dtype}{slow if args.dtype == 'float32' else ''}")
    model = load_adapted(args, folder, resumed, device)
    reference, critic = None, None  # GPG needs neither
    if args.kl_coef:
        first = load_model(args, first_model(args), device).eval()
        reference = suit(Policy(first, args.temperature, args.dtype, processor and processor.remembered))
        reference.requires_grad_(False)
    if args.baseline == "critic":
        critic = Critic(load_model(args, first_model(args), device), args.dtype)
        if resumed:
            critic.load_state_dict(load_file(resumed / checkpoint.CRITIC))
        for parameter in unreached(critic).values():  # DistributedDataParallel would wait for them
            parameter.requires_grad_(False)
        critic = spread(critic, "ddp")
    parts = [p for part in (model, reference) if part for p in part.parameters() if not p.requires_grad]
    frozen = str(int(faults.hash_of(parts))) if parts else None
    policy = make_policy(model, kind, args, processor, problems)
    if args.lora_rank and args.dtype == "bfloat16" and kind == "ddp":  # shards have one dtype
        halve(model, frozen_only=True)
    rates = {"lr": args.lr, "weight_decay": args.weight_decay, "critic_lr_factor": args.critic_lr_factor}
    optimizer = make_optimizer(model, critic, kind=args.optimizer, fused=is_gpu(device), **rates)
    method = Method(**{field.name: getattr(args, field.name) for field in fields(Method)})
    decode = decoder(device, say)
    return Trained(model, policy, tokenizer, optimizer, method, processor, reference, critic, decode, frozen)


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


def config_of(args, resumed: Path | None):
    """The configuration of the run's model. A built-in one need not have been made for that."""
    folder = resumed or args.model
    if task := BUILT_INS.get(folder):
        return task.make_config(task.make_tokenizer())
    return pretrained(AutoConfig, folder, args.trust_remote_code)


def load_model(args, folder, device: torch.device):
    """The model to train, in the mode in which it samples, or another policy would be scored."""
    model = read_model(args, folder, device)
    for module in model.modules():  # some ask whether they train before they checkpoint
        module.training = isinstance(module, (PreTrainedModel, GradientCheckpointingLayer))
    if args.freeze_vision:
        freeze_vision(model, args.model)
    if args.gradient_checkpointing:
        user_input(model.activation_checkpointing_enable)
    return model


def read_model(args, folder, device: torch.device, half: bool = False):
    """A model in float32 (float64 with that --dtype; half: bfloat16, to sample only), without dropout and losses of
    routers. A trial shows that it can be sampled."""
    kind = model_class(pretrained(AutoConfig, folder, args.trust_remote_code))
    options = {"dtype": torch.float32}
    if args.dtype == "float64":  # which the kernel for all experts at once does not know
        options = {"dtype": torch.float64, "experts_implementation": "eager"}
    model = pretrained(kind, folder, args.trust_remote_code, output_loading_info=True, **options)
    for part in [x for module in model.modules() for x in (module, getattr(module, "config", None))]:
        for name, value in vars(part).copy().items() if part is not None else ():
            if "drop" in name and isinstance(value, float) or name == "output_router_logits":
                setattr(part, name, type(value)(0))
    if args.dtype == "float64":
        for parameter in model.parameters():  # of some routers they stay in float32
            parameter.data = parameter.data.double()
        keep_float64(model)
    if is_gpu(device):
        fuse_norms(model)
    model = (halve(model) if half else model).to(device)
    user_input(check_sampling, model, "bfloat16" if half else "float32")
    return model


@torch.no_grad()
def check_sampling(model, dtype: str) -> None:
    """ValueError: a row that is decoded beside a longer prompt, from a repeated cache, is not scored as it is alone."""
    try:
        with eval_mode(model), autocast(dtype, model.device):
            r = rollout(model, SimpleNamespace(eos_token_id=0, pad_token_id=0), [[1], [2, 3, 4, 5]], 2, 6)
            ids = torch.nn.functional.pad(r.completion_ids[0], (1, 0), value=1)  # (2, 1 + T)
            alone = token_logprobs(model(ids, use_cache=False).logits[:, :-1], ids[:, 1:])
        gap = (r.logprobs[0] - alone)[r.completion_mask[0].bool()].abs().median()  # one token may meet another expert
        if gap > (0.5 if dtype == "bfloat16" else 1e-3):  # more than rounding explains
            raise ValueError(f"beside a longer prompt, log-probabilities differ by {gap:.1g}")
    except Exception as error:  # a model may fail at this in any way
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{type(model).__name__} can't be sampled in groups: {reason}") from None


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


def make_policy(model, kind: str, args, processor=None, problems: list[dict] = ()) -> torch.nn.Module:
    """The trained policy on all ranks, with a line on each saving that this model does not allow."""
    features = processor.remembered if any("images" in row for row in problems) else None
    policy = suit(Policy(model, args.temperature, args.dtype, features))
    name = type(model).__name__
    if not policy.sliced:
        say(f"{name}: logits are more than a linear layer of hidden states, so they are made whole, not in slices")
    if features and not policy.shared:
        fail(f"{name}: completions can't continue from a prompt's cache, which pictures need; give another --model")
    if not policy.shared:
        say(f"{name}: completions can't continue from a prompt's cache, so a prompt is forwarded once per sample")
    found = unreached(policy)  # by text, if no problem has a picture: frozen, or weight decay alone would change it
    lost = {of: p.requires_grad_(False) for of, p in found.items() if "expert" not in of}  # one may be chosen later
    policy.partial |= len(found) > len(lost)
    if lost:
        count = sum(p.numel() for p in lost.values())
        say(f"{name}: no text reaches {count:,} of its parameters, so they are frozen; the first: {next(iter(lost))}")
    return spread(policy, kind)


def pretrained(kind, name: str | Path, trust: bool = False, **options):
    """What a class's from_pretrained makes of a folder or hub name. trust: code that comes with it may run."""
    try:
        if not Path(name).exists():
            seek_hub()
        if find_adapter_config_file(str(name)):
            fail(f"--model {name}: an adapter; merge it into its model (peft: merge_and_unload) and give that folder")
        loaded = kind.from_pretrained(name, trust_remote_code=trust, **options)
    except Exception as error:  # those of the hub, of configurations and of weights have no ancestor in common
        if "trust_remote_code" in str(error):
            fail(f"--model {name}: it needs code that comes with it; --trust-remote-code runs that, if you trust it")
        reason = " ".join(str(error).split())[:300]
        if os.path.isdir(name) and not Path(name, "config.json").exists():
            reason = "the folder has no config.json"
        fail(f"--model {name}: no causal LM could be read ({reason}); give its folder or its hub name")
    if options.get("output_loading_info"):
        loaded, info = loaded
        if info["missing_keys"]:  # they would be random
            fail(f"--model {name}: weights are missing, {sorted(info['missing_keys'])[0]} for one; give a whole model")
    return loaded
