import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from planners import CEM, CEMConfig, MPCAgent, PlannerError

SETTINGS = {"horizon": 4, "num_samples": 24, "num_iterations": 3}


@pytest.fixture
def make_agent(toys):
    """Return a function that makes an agent whose games are numbers that count their steps."""

    def make(replan_every=1, **settings):
        heard = []

        def observe(obs, actions, is_first):
            heard.append((actions, is_first))
            return toys["Code"](roots=tuple(obs[:, 0].tolist()))

        config = CEMConfig(**{**SETTINGS, **settings})
        planner = CEM(config, generator=torch.Generator().manual_seed(0))
        return MPCAgent(planner, observe, obs_shape=(1,), replan_every=replan_every), heard

    return make


def test_it_does_what_the_best_plan_begins_with(make_agent, toys):
    agent, _ = make_agent(num_samples=200)
    actions, memory = agent.predict(np.array([[3], [8]]))
    assert actions.tolist() == toys["Code"].secret[[3, 8]].tolist()
    assert actions.tolist() == memory.plan.actions[:, 0].tolist()
    assert actions.dtype == np.int64


def test_one_game_gives_one_action_and_many_give_many(make_agent):
    agent, _ = make_agent()
    alone, _ = agent.predict(np.array([3]))
    assert alone.shape == () and int(alone) in range(3)
    batch, _ = agent.predict(np.array([[3]]))
    assert batch.shape == (1,)


def test_it_tells_its_observer_what_it_did_and_which_games_are_new(make_agent):
    agent, heard = make_agent()
    obs = np.array([[0], [0]])
    first, memory = agent.predict(obs, None, np.array([True, True]))
    second, memory = agent.predict(obs + 1, memory, np.array([False, True]))
    agent.predict(obs + 2, memory)
    (no_actions, all_new), (told, one_new), (told_again, none_new) = heard
    assert no_actions is None and all_new.tolist() == [True, True]
    assert told is first and one_new.tolist() == [False, True]
    assert told_again is second and none_new.tolist() == [False, False]


def test_it_plans_on_from_the_last_plan_but_not_across_games(make_agent):
    is_new = {"on": np.array([False]), "anew": np.array([True])}
    plans = {}
    for name, episode_start in is_new.items():
        agent, _ = make_agent()
        _, memory = agent.predict(np.array([[0]]))
        _, memory = agent.predict(np.array([[1]]), memory, episode_start)
        plans[name] = memory.plan.proposal.probs
    cold, _ = make_agent()
    cold.predict(np.array([[0]]))
    _, memory = cold.predict(np.array([[1]]), None)
    assert torch.equal(plans["anew"], memory.plan.proposal.probs)
    assert not torch.equal(plans["on"], plans["anew"])


def test_a_plan_is_played_on_until_the_next_is_due_or_a_game_begins(make_agent):
    agent, heard = make_agent(replan_every=3)
    begins = [False, False, False, False, True, False]
    memory, plans, taken = None, [], []
    for step, begin in enumerate(begins):
        action, memory = agent.predict(np.array([[step]]), memory, np.array([begin]))
        plans.append(memory.plan)
        taken.append(
            (
                memory.num_played,
                action.tolist() == memory.plan.actions[:, memory.num_played - 1].tolist(),
            )
        )
    assert [plan is plans[0] for plan in plans] == [True] * 3 + [False] * 3
    assert plans[3] is not plans[4] and plans[4] is plans[5]
    assert taken == [(1, True), (2, True), (3, True), (1, True), (1, True), (2, True)]
    assert len(heard) == 6  # it sees every step, whether it plans or not


def test_a_search_goes_on_where_the_steps_that_were_played_have_led(make_agent):
    agent, _ = make_agent(replan_every=2, num_iterations=1)
    started = []
    plan = agent.planner.plan

    def spy(model, warm_start=None):
        started.append(warm_start)
        return plan(model, warm_start)

    agent.planner.plan = spy
    _, memory = agent.predict(np.array([[0]]))
    first = memory.plan.proposal
    for step in (1, 2):
        _, memory = agent.predict(np.array([[step]]), memory)
    assert started[0] is None and len(started) == 2
    assert started[1].probs[:, :2].equal(first.probs[:, 2:])
    assert started[1].probs[:, 2:].equal(first.prior.expand(1, 2, 3))


@pytest.mark.parametrize("number", [0, 5])
def test_only_steps_of_a_plan_can_be_played(make_agent, number):
    text = rf"replan_every must lie in \[1, 4\], the steps of a plan, got {number}"
    with pytest.raises(PlannerError, match=text):
        make_agent(replan_every=number)


def test_a_seed_plays_the_same_game_twice(make_agent):
    def play():
        agent, _ = make_agent(num_samples=8)
        memory, taken = None, []
        for step in range(6):
            action, memory = agent.predict(np.array([step]), memory)
            taken.append(int(action))
        return taken

    assert play() == play()


def test_a_model_that_rejects_every_plan_of_a_game_is_an_error(toys):
    class HalfBroken(toys["Bandit"]):
        def earn(self, root, actions):
            reward, continuation = super().earn(root, actions)
            return reward.masked_fill(root == 1, torch.nan), continuation

    planner = CEM(CEMConfig(**SETTINGS), generator=torch.Generator().manual_seed(0))
    agent = MPCAgent(planner, lambda *_: HalfBroken(roots=(0, 1)), obs_shape=(1,))
    text = r"no plan of games \[1\] has a finite score \(candidates rejected: \[72\]\)"
    with pytest.raises(PlannerError, match=text):
        agent.predict(np.array([[0], [1]]))


class CodeEnv(gym.Env):
    """Ten steps of the secret code; a step earns 1 if it is the code's."""

    observation_space = gym.spaces.Box(0, 200, (1,), np.int64)
    action_space = gym.spaces.Discrete(3)

    def __init__(self, secret):
        self.secret = secret

    def reset(self, *, seed=None, options=None):
        """Begin with the first step."""
        super().reset(seed=seed)
        self.place = 0
        return np.array([0]), {}

    def step(self, action):
        """Go on, whether right or wrong."""
        reward = float(action == self.secret[self.place])
        self.place += 1
        return np.array([self.place]), reward, self.place == 10, False, {}


def test_stable_baselines_evaluates_it_as_one_of_its_own(make_agent, toys):
    agent, heard = make_agent(num_samples=100)
    envs = DummyVecEnv([lambda: CodeEnv(toys["Code"].secret.tolist())] * 2)
    returns, lengths = evaluate_policy(
        agent, envs, n_eval_episodes=4, return_episode_rewards=True, warn=False
    )
    assert returns == [10.0] * 4 and lengths == [10] * 4
    assert [is_first.tolist() for _, is_first in heard].count([True, True]) == 2
