"""LEARN: the training loop and its networks; knows torch, and any BatchSource."""
