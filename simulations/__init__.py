"""Whole federations on one machine, to learn from and to compare."""
