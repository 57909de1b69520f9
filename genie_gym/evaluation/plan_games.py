"""Games of a planner, one after the other, and what each of them brought."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from tqdm import tqdm


@dataclass(frozen=True, slots=True)
class Game:
    """What one game brought."""

    seed: int
    score: float
    """Sum of its rewards."""
    num_won: int
    """Steps with a reward above 0."""
    num_lost: int
    """Steps with a reward below 0."""
    num_decisions: int
    is_over: bool
    """Whether it was played to its end, or else cut by --max-steps or --max-decisions."""
    seconds_per_decision: float
    num_rejected: int
    """Candidates whose score was not finite."""


def play_games(
    env: gym.Env[Any, Any],
    agent: Any,
    num_games: int,
    *,
    seed: int,
    max_decisions: int | None = None,
    finished: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Game]:
    """Play the games that are not finished, and print a line and yield after each.

    Args:
        env: what is played.
        agent: a `planners.MPCAgent`.
        num_games: games in all.
        seed: game i, and the planner in it, is seeded with seed + i: it is the same whatever was
            played before.
        max_decisions: stop after so many decisions of all games together.
        finished: fields of the games that have been played already.
    """
    num_decisions = sum(game["num_decisions"] for game in finished)
    with tqdm(total=max_decisions, initial=num_decisions, unit="decision") as bar:
        for episode in range(len(finished), num_games):
            if num_decisions == max_decisions:
                break
            limit = max_decisions and max_decisions - num_decisions
            game = _play_one(env, agent, seed + episode, limit, bar)
            num_decisions += game.num_decisions
            bar.write(
                f"episode {episode}: return {game.score:g} ({game.num_won} won, {game.num_lost} "
                f"lost), {game.num_decisions} decisions, {game.seconds_per_decision:.3f} s each"
                f"{'' if game.is_over else ', not played to its end'}"
            )
            yield game


def _play_one(
    env: gym.Env[Any, Any], agent: Any, seed: int, max_decisions: int | None, bar: Any
) -> Game:
    obs, _ = env.reset(seed=seed)
    agent.planner.generator.manual_seed(seed)
    memory, num_rejected, seconds = None, 0, 0.0
    terminated = truncated = False
    rewards: list[float] = []
    while not (terminated or truncated) and len(rewards) != max_decisions:
        begin = time.perf_counter()
        action, memory = agent.predict(obs, memory)
        seconds += time.perf_counter() - begin
        if memory.num_played == 1:
            num_rejected += int(memory.plan.num_rejected.sum())
        obs, reward, terminated, truncated, _ = env.step(action)
        rewards.append(float(reward))
        bar.update()
    return Game(
        seed=seed,
        score=sum(rewards),
        num_won=sum(reward > 0 for reward in rewards),
        num_lost=sum(reward < 0 for reward in rewards),
        num_decisions=len(rewards),
        is_over=terminated,
        seconds_per_decision=seconds / len(rewards),
        num_rejected=num_rejected,
    )
