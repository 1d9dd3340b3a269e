"""The networks of the talk in plain PyTorch, one file each; `registry` lists them without importing torch."""
