"""The update, on any number of ranks: log-probabilities, their gradient, the optimizer step. In reading order:

policy          log pi of completions: a prompt once per group, completions by length
output_layer    logits in slices, never whole
batch, balance  what a step sampled; which rank trains on which part of it
micro_batches   a rank's part, cut to fit the memory
optimizer       AdamW, its rate, the clip, the step
parallel        DDP and FSDP, with gradients summed over ranks
faster          the weights that sampling reads under --dtype bfloat16; norms as one kernel on a GPU
fixed_shapes    the loop over tokens on a GPU, one CUDA graph a token; the plain one is in rollout.py
lora, float64   what --lora-rank and --dtype float64 add
methods         what GRPO, PPO and others need, and GPG does not
"""
