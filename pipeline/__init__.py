"""CARRY: from design to batch; the only package that knows both solvers and trainers."""
