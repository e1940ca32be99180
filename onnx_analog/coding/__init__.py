"""Weights to planes and back: arrays only, no ONNX and no files."""
