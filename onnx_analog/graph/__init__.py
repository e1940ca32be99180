"""ONNX models: read, checked and written; where weights hide; what a protected model says."""
