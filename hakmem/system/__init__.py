"""The host under the measurements: what it is, its turn, its limits, what is left running on it."""
