"""The networks of the talk in plain PyTorch, one file each."""
