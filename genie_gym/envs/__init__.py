"""Environments: the real game, the learned world, and what plans in either."""
