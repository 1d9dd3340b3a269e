"""PyTorch module to ONNX bundle: translation, shapes, weights, proof."""
