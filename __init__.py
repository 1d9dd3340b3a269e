"""Build, export, check operator by operator and benchmark neural networks in ONNX."""

__version__ = "0.1.0"
