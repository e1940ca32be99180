"""Finds the cheapest way to keep a network in a memory: sensitivities, candidates, allocation, and verification."""
