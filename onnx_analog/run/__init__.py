"""A model in onnxruntime: its data, its metric, one read of its memory, many trials."""
