"""The loops that turn exported graphs into words and pictures, over ONNX Runtime alone; torch is not needed."""
