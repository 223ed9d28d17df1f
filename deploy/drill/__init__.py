"""Kills the parts of a running study and judges what it lost."""
