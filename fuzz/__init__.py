"""Mutated inputs for every command, and what must hold whatever they are: docs/fuzzing.md. Not installed."""
