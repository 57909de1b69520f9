"""Toy models with known optima."""

import pytest
import torch

from planners import Rollout


class ToyState:
    """A number a row."""

    def __init__(self, rows):
        self.rows = rows

    def expand(self, num_copies):
        """Return every row `num_copies` times."""
        return ToyState(self.rows.repeat_interleave(num_copies))


class ToyModel:
    """Keeps what it was asked, and leaves reward and continuation to its subclasses."""

    num_actions = 3
    action_bounds = None
    policy = None
    value = None

    def __init__(self, roots=(0,)):
        self.roots = torch.tensor(roots)
        self.num_roots = len(self.roots)
        self.asked = []

    def snapshot(self):
        """Return a number a root."""
        return ToyState(self.roots)

    def rollout(self, state, actions):
        """Return what `earn` says of these candidates."""
        self.asked.append(actions.clone())
        reward, continuation = self.earn(state.rows[:, None, None], actions)
        return Rollout(reward.float(), continuation.float(), state.expand(actions.shape[1]))

    def step(self, state, actions):
        """Return where one action leads; the toys stay where they are."""
        reward, continuation = self.earn(state.rows[:, None, None], actions[:, None, None])
        return state, reward[:, 0, 0], continuation[:, 0, 0]


class Bandit(ToyModel):
    """Action a pays its pay at every root, shifted by the root's number; nothing ends."""

    pay = torch.tensor([0.1, 0.9, 0.5])

    def earn(self, root, actions):
        """Return the pay of every action."""
        reward = self.pay[(actions + root) % 3]
        return reward, torch.ones_like(reward)


class Chain(ToyModel):
    """Action 1 steps right, all others left; only standing at `goal` after a step pays 1."""

    goal = 3

    def earn(self, root, actions):
        """Return 1 where the walker stands at the goal."""
        place = root + torch.where(actions == 1, 1, -1).cumsum(-1)
        return (place == self.goal).float(), torch.ones(actions.shape)


class Trap(ToyModel):
    """Action 0 pays 1 and ends the game; the others pay 0.6 and go on."""

    def earn(self, root, actions):
        """Return the pay, and 0 after the trap."""
        is_trap = actions == 0
        return torch.where(is_trap, 1.0, 0.6), (~is_trap).float()


class Broken(Bandit):
    """Candidates that begin with the best action pay NaN, those with action 2 infinity."""

    def earn(self, root, actions):
        """Return pay that is not finite for two of three first actions."""
        reward, continuation = super().earn(root, actions)
        reward[actions[..., 0] == 1] = torch.nan
        reward[actions[..., 0] == 2] = torch.inf
        return reward, continuation


class Code(ToyModel):
    """Pays 1 for each step that is the secret's, which begins at the root's number."""

    secret = torch.randint(3, (200,), generator=torch.Generator().manual_seed(7))

    def earn(self, root, actions):
        """Return 1 for every right step."""
        wanted = self.secret[root + torch.arange(actions.shape[-1])]
        return (actions == wanted).float(), torch.ones(actions.shape)


class Point(ToyModel):
    """A point on a plane is pushed by vectors, and pays minus its distance from a target."""

    num_actions = None
    action_bounds = torch.tensor([[-1.0, -0.5], [1.0, 0.5]])
    target = torch.tensor([2.0, -1.0])

    def earn(self, root, actions):
        """Return minus the distance after each push."""
        place = root[..., None] + actions.cumsum(-2)
        reward = -(place - self.target).norm(dim=-1)
        return reward, torch.ones_like(reward)


@pytest.fixture
def toys():
    """Return the classes of the toy models, by name."""
    kinds = (Bandit, Chain, Trap, Broken, Code, Point)
    return {kind.__name__: kind for kind in kinds}
