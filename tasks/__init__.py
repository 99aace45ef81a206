"""What is asked: problems from files and the hub, their prompts, the benchmarks, the built-in sums."""
