"""ONNX graphs as data: load and validate a file, name its nodes, make its inputs, evaluate it in float64."""
