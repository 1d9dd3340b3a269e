"""Our own translations of PyTorch operators, each for the opsets that it is written for; `table` chooses among them."""
