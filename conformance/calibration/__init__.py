"""How good the verdict is: what it says of injected faults and of correct implementations that differ.

`python -m onnx_arch.conformance.calibration` runs the library and prints the tables of docs/calibration.md.
"""
