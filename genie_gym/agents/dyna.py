"""Dyna: play with the policy, train the world on that play, train the policy in it; repeat.

runs/dyna/
    config.yaml    what was asked for
    policy/        the policy of the newest finished round
    round-00/
        data/      real play of this round, as genie-gym collect leaves it
        world_run/ the run that trained the world, as genie-gym train leaves it
        world/     the world, as genie-gym export leaves it
        agent/     the run of the agent, as genie-gym agent train leaves it
    round-01/ ...
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from genie_gym.agents.algorithms import check_options, make_policy
from genie_gym.agents.dreamer import DreamerConfig
from genie_gym.agents.dyna_config import DynaConfig
from genie_gym.agents.policy import RUN_SUBFOLDER, load_policy, save_policy
from genie_gym.agents.run import open_run, train_agent
from genie_gym.config import from_dict
from genie_gym.envs.real import RealEnv, frame_side
from genie_gym.errors import ConfigError
from genie_gym.models.bundle import CARD_FILE, choose_device, load_world
from genie_gym.models.stack import STAGES
from genie_gym.training.export import export
from genie_gym.training.run import run_training

CONTINUED = ("dynamics", "reward")
"""Parts that later rounds train on. The others stay, so that a token goes on to mean the same."""


@runtime_checkable
class Recorder(Protocol):
    """`collectors.record`: this package takes it as an argument and never imports it."""

    def __call__(
        self,
        game: str,
        out: str | Path,
        *,
        steps: int,
        policy: str,
        seed: int,
        frame_size: int | None,
        max_episode_steps: int,
        resume: bool,
    ) -> object:
        """Record exactly so many real steps, or go on with a recording."""


@dataclass(frozen=True, slots=True)
class Round:
    """Folders of one round."""

    path: Path

    @property
    def data(self) -> Path:
        """Its real play."""
        return self.path / "data"

    @property
    def world_run(self) -> Path:
        """The run that trains its world."""
        return self.path / "world_run"

    @property
    def world(self) -> Path:
        """Its world; there once it is whole."""
        return self.path / "world"

    @property
    def agent(self) -> Path:
        """The run that trains its policy."""
        return self.path / "agent"


def train_dyna(
    config: DynaConfig,
    out: Path,
    *,
    record: Recorder,
    resume: bool = False,
    on_phase: Callable[[str], object] = lambda text: None,
) -> Path:
    """Play, train a world and train a policy in it, in turn; return the last policy's folder.

    The first round plays blindly and trains all parts of the world. Later rounds play with the
    policy of the round before, train dynamics and reward model on with all play so far, and train
    that policy on in the new world. Imagined games begin anywhere in the play of all rounds so far.

    Args:
        config: what to do.
        out: the run folder; its spelling must stay the same, since the recordings name it.
        record: what plays the real game.
        resume: whether to go on with a run that was broken off, if there is one. On a CPU the
            result is that of a run that was never broken off.
        on_phase: told what begins.

    Raises:
        ConfigError: a setting does not fit the game, or `out` holds a comma.
        DataError: the folder holds a run, and `resume` is not set, or the run has another config
            or was changed; there is too little real play to train on.
        GenieError: whatever else recording and training raise.

    Source:
        Sutton 1991, "Dyna, an integrated architecture for learning, planning, and reacting", in the
        rounds of Kaiser et al. 2020, "Model-Based Reinforcement Learning for Atari", algorithm 1.
        Which parts stay as the first round made them is ours.
    """
    _check(config, out)
    open_run(out, config, resume=resume)
    rounds = [Round(out / f"round-{number:02d}") for number in range(config.rounds)]
    # A round begins when the one before is whole.
    newest = max((number for number, one in enumerate(rounds) if one.path.exists()), default=0)
    for number in range(newest, config.rounds):
        said = f"round {number + 1} of {config.rounds}"
        played, this = rounds[: number + 1], rounds[number]
        on_phase(f"{said}: {config.steps_by_round[number]} real steps")
        _collect(config, played, record)
        if not (this.world / CARD_FILE).is_file():
            on_phase(f"{said}: the world, on {sum(config.steps_by_round[: number + 1])} real steps")
            _train_world(config, played)
        on_phase(f"{said}: the agent, for {config.agent.steps} imagined steps")
        _train_agent(config, played)
        policy = load_policy(this.agent)
        save_policy(out / RUN_SUBFOLDER, policy.card, policy.network.state_dict())
    return out / RUN_SUBFOLDER


def _collect(config: DynaConfig, rounds: Sequence[Round], record: Recorder) -> None:
    """Record the real play of the last of these rounds."""
    number, stack = len(rounds) - 1, config.world.stack
    policy = blind = f"repeat:{config.repeat_prob}"
    if number:
        policy = f"agent:{rounds[-2].agent}"
        if config.explore_share:
            shares = f"{policy}={1 - config.explore_share},{blind}={config.explore_share}"
            policy = f"mixed:{shares}"
    record(
        config.game,
        rounds[-1].data,
        steps=config.steps_by_round[number],
        policy=policy,
        # Blind games of one seed would be the same in every round.
        seed=int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0]),
        frame_size=frame_side(stack.height, stack.width),
        max_episode_steps=config.max_episode_steps,
        resume=True,
    )


def _train_world(config: DynaConfig, rounds: Sequence[Round]) -> None:
    """Train the world of the last of these rounds on the play of all of them, and export it."""
    *before, this = rounds
    former = load_world(before[-1].world) if before else None
    if before:
        for stage in STAGES:
            if stage not in CONTINUED:
                _copy_stage(before[-1].world_run / stage, this.world_run / stage)
    run_training(
        config.later_world if before else config.world,
        [one.data for one in rounds],
        this.world_run,
        stages=CONTINUED if before else STAGES,
        resume=True,
        init_from=former,
        device=choose_device(config.agent.env.device),
    )
    # Most of the play would be lost as starts if only the few validation games gave them.
    export(this.world_run, this.world, start_paths=[one.data for one in rounds])


def _copy_stage(source: Path, target: Path) -> None:
    """Copy a finished stage, all of it or nothing."""
    part = target.with_name(f".{target.name}.part")
    if not target.exists():
        unneeded = shutil.ignore_patterns("checkpoints", "events.*")
        shutil.copytree(source, part, ignore=unneeded, dirs_exist_ok=True)
        os.replace(part, target)


def _train_agent(config: DynaConfig, rounds: Sequence[Round]) -> None:
    """Train the policy of the last of these rounds in its world."""
    *before, this = rounds
    agent = replace(
        config.agent,
        env=replace(config.agent.env, world=str(this.world)),
        init_from=str(before[-1].agent) if before else None,
    )
    train_agent(agent, this.agent, resume=True)


def _check(config: DynaConfig, out: Path) -> None:
    """Refuse at once what would fail only after real steps are spent."""
    if "," in str(out):
        raise ConfigError(
            f"--out must hold no comma, which divides the policies of a mixture, got {str(out)!r}. "
            "Name another folder"
        )
    stack, agent = config.world.stack, config.agent
    num_actions = len(RealEnv(config.game).action_meanings)
    if stack.num_actions != num_actions:
        raise ConfigError(
            f"{config.game} has {num_actions} actions, but world.stack.num_actions is "
            f"{stack.num_actions}. Set it to {num_actions}"
        )
    if agent.algo == "dreamer":
        from_dict(DreamerConfig, agent.algo_options, "agent.algo_options")
        return
    check_options(agent)
    make_policy(agent.algo, agent.network, (stack.height, stack.width), num_actions)
