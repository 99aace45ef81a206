"""The built-in models by the names that --model gives them, and the flags for which they need values other than the
paper's. Here, and not beside the tasks, so that a wrong flag is found without importing torch."""

# of both
COMMON: dict[str, object] = {
    "group_size": 8,  # as in the paper; addition.FORGET is chosen for groups of 8
    "temperature": 1.0,  # mistakes are sampled as often as they were demonstrated
    "dtype": "float32",  # also on a GPU, which is no faster for a model of this size
    "warmup": 10,  # steps; the first ones show the initial model
    "weight_decay": 0.0,  # too few steps to need it
    "grad_clip": 1.0,  # rarely clips: norms are .1 to .4
    "beta_th": 0.25,  # alpha is at most 4; a second round is rare before the reward levels off
    "max_rounds": 4,
    "tokens_per_micro_batch": 4096,  # two or three passes per step, which fit a small cache
}
_SUMS = COMMON | {
    "steps": 50,  # the reward has levelled off; later, few groups are still mixed
    "prompts_per_step": 16,  # 128 completions, enough to hide the overhead of a decoding step
    "max_prompt_tokens": 32,  # the longest prompt has 11
    "max_new_tokens": 40,  # the longest demonstration has 34
    "lr": 1e-4,  # 1e-6 is for a billion parameters
    "schedule": "constant",  # the run is too short to decay
    "eval_every": 10,
    "noise_every": 10,
}
_PICTURES = COMMON | {
    "steps": 200,
    "prompts_per_step": 32,  # with 16 the gradient is too noisy
    "max_prompt_tokens": 40,  # a picture has up to 16 image tokens
    "max_new_tokens": 14,
    "lr": 5e-4,
    "schedule": "cosine",  # the last steps are small: at a constant rate the end is noisy
    "lr_floor": 0.1,
    "rewards": "iou_or_name",  # a box by its overlap, a count is right or wrong
    "eval_every": 20,
}
_LENGTHS = _SUMS | {"max_new_tokens": 92}  # the longest demonstration has 83
DEFAULTS = {"tiny": _SUMS, "tiny-lengths": _LENGTHS, "tiny-pictures": _PICTURES}
DEFAULTS |= {"tiny-count": _PICTURES, "tiny-find": _PICTURES}  # one of its two kinds of problems
BENCHES = {"tiny": "addition", "tiny-pictures": "shapes"}  # their tasks, by the names of eval.py's --bench
