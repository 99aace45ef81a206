"""A run's life, from its flags to its last checkpoint."""
