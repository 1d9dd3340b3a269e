"""Float64 NumPy kernels of ONNX operators, each with its error scale."""
