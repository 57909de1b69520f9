"""Planners: a batched model in, an action out; they never see a network."""

from planners.agent import Memory, MPCAgent, Observer
from planners.categorical import CategoricalConfig
from planners.cem import CEM, CEMConfig
from planners.errors import PlannerError
from planners.exhaustive import Exhaustive, ExhaustiveConfig
from planners.gumbel import GumbelConfig, GumbelSearch
from planners.icem import ICEM, ICEMConfig
from planners.mppi import MPPI, CategoricalMPPI, CategoricalMPPIConfig, MPPIConfig
from planners.protocol import Model, Rollout, RolloutLike
from planners.random_shooting import RandomShooting
from planners.scoring import score
from planners.search import Plan, SearchConfig, SequencePlanner

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "CEMConfig",
    "CategoricalConfig",
    "CategoricalMPPI",
    "CategoricalMPPIConfig",
    "Exhaustive",
    "ExhaustiveConfig",
    "GumbelConfig",
    "GumbelSearch",
    "ICEMConfig",
    "MPCAgent",
    "MPPIConfig",
    "Memory",
    "Model",
    "Observer",
    "Plan",
    "PlannerError",
    "RandomShooting",
    "Rollout",
    "RolloutLike",
    "SearchConfig",
    "SequencePlanner",
    "score",
]
