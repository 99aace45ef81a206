"""The update, on any number of ranks: log-probabilities, their gradient, the optimizer step."""
