"""Planners: a batched model in, an action out; they never see a network."""

from planners.protocol import Model, Rollout, RolloutLike
from planners.random_shooting import Plan, RandomShooting, RandomShootingConfig, score

__all__ = [
    "Model",
    "Plan",
    "RandomShooting",
    "RandomShootingConfig",
    "Rollout",
    "RolloutLike",
    "score",
]
