"""The `onnx-arch` command: parse, call, print."""
