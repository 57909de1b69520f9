"""Planners in the learned moving square, judged by the rules of the real one."""

import pytest
import torch

from genie_gym.envs.planning import WorldModel
from planners import CEM, CEMConfig, Exhaustive, ExhaustiveConfig, GumbelConfig, GumbelSearch

HORIZON = 5
PLANNERS = {
    "exhaustive": (Exhaustive, ExhaustiveConfig(horizon=HORIZON, macro_length=1, num_samples=1024)),
    "cem": (CEM, CEMConfig(horizon=HORIZON, num_samples=64)),
    "gumbel": (GumbelSearch, GumbelConfig(horizon=HORIZON, num_samples=128, repeat_prob=0.9)),
}


@pytest.mark.parametrize("name", PLANNERS)
def test_the_square_is_pushed_against_the_nearest_wall(name, moving_square, square_world):
    places = torch.tensor([[1, 3], [3, 5], [5, 2], [2, 1], [6, 6], [0, 3]])
    indices = places[:, 0] * moving_square.num_columns + places[:, 1]
    kind, config = PLANNERS[name]
    planner = kind(config, generator=torch.Generator().manual_seed(0))
    found = planner.plan(WorldModel(square_world, square_world.start(indices)))

    earned, ends = torch.zeros(len(places)), torch.zeros(len(places), dtype=torch.bool)
    for step, actions in enumerate(found.actions.T):
        places, rewards, over = moving_square.move(places, actions)
        earned += rewards * 0.99**step * ~ends
        ends |= over
    # Each root is 1, 1, 1, 1, 0 and 0 steps from its wall; from there on every push earns 1.
    wanted = torch.tensor(
        [sum(0.99**t for t in range(away, HORIZON)) for away in (1, 1, 1, 1, 0, 0)]
    )
    torch.testing.assert_close(earned, wanted)
    torch.testing.assert_close(found.score, wanted, atol=0.3, rtol=0)
