"""A run folder of an agent, and the training that fills it.

runs/ppo/
    config.yaml                what was asked for
    policy/                    the newest policy: policy.json, policy.safetensors
    best/                      the one that did best in a check in the real game
    metrics.jsonl              one line a check
    checkpoints/               to resume from
    events.out.tfevents.*      TensorBoard
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.logger import configure
from tqdm import tqdm

from genie_gym.agents.checkpoint import Checkpoints
from genie_gym.agents.config import AgentConfig
from genie_gym.agents.dreamer import Dreamer
from genie_gym.agents.learner import Learner
from genie_gym.agents.policy import RUN_SUBFOLDER, PolicyCard, load_policy
from genie_gym.agents.progress import Progress
from genie_gym.agents.sb3_learner import SB3Learner
from genie_gym.config import from_dict, load_yaml, to_dict
from genie_gym.envs.replay import world_hash
from genie_gym.errors import ConfigError, DataError, PolicyError
from genie_gym.files import write_text
from genie_gym.models.world import World

CONFIG_FILE = "config.yaml"


def train_agent(config: AgentConfig, out: Path, *, resume: bool = False) -> Path:
    """Train an agent inside a world; return the folder of its last policy.

    Args:
        config: what to train.
        out: the run folder.
        resume: whether to go on from the newest checkpoint of a run, if there is one. On a CPU the
            result is that of a run that was never broken off.

    Raises:
        ConfigError: an option is out of its range.
        DataError: the folder holds a run, and `resume` is not set or the run has another config,
            another world or another policy to begin from.
        MissingExtraError: the algorithm's package is not installed.
        PolicyError: there is no policy `config.init_from`, or it does not fit.
        WorldError: there is no such world, or it is another game's, or lacks a reward model.
        DeviceError: the device is not there.
    """
    former = load_policy(config.init_from) if config.init_from else None
    learner: Learner = Dreamer(config) if config.algo == "dreamer" else SB3Learner(config)
    card = _card(config, learner.world)
    if former:
        card = _continued(card, former.card, str(config.init_from))
        learner.begin_with(former.network)
    open_run(out, config, resume=resume)
    checkpoints = Checkpoints(out / "checkpoints")
    begun = {
        "world_hash": card.world_hash,
        "init_from_hash": former.card.weights_hash if former else None,
    }
    marks = begun | (checkpoints.restore_newest(learner) or {})
    if marks["world_hash"] != card.world_hash:
        raise DataError(
            f"{out} was begun in the world {marks['world_hash']}, but {card.world!r} is now "
            f"{card.world_hash}. Find the former world, or take another --out"
        )
    if marks["init_from_hash"] != begun["init_from_hash"]:
        raise DataError(
            f"{out} was begun with the weights {marks['init_from_hash']}, but those of "
            f"{config.init_from} are now {begun['init_from_hash']}. Find the former policy, or "
            "take another --out"
        )
    logger = configure(str(out), ["tensorboard"])
    done = learner.num_steps
    with tqdm(total=config.steps, initial=done, unit="step", desc=config.algo) as bar:
        progress = Progress(learner, config, card, out, checkpoints, logger, bar, marks)
        if done < config.steps:
            learner.learn(config.steps, logger, on_rollout=progress.visit, on_steps=bar.update)
        progress.visit(is_last=True)
    return out / RUN_SUBFOLDER


def read_config(out: Path) -> AgentConfig:
    """Return the config of a run.

    Raises:
        DataError: the folder holds no run of an agent.
    """
    file = out / CONFIG_FILE
    if not file.is_file():
        raise DataError(
            f"{out} holds no run of an agent (no {CONFIG_FILE}). Make one: genie-gym agent train "
            f"--world pong --out {out}"
        )
    return from_dict(AgentConfig, load_yaml(file), str(file))


def open_run(out: Path, config: Any, *, resume: bool) -> None:
    """Keep a config in a new run folder, or compare it with the one that lies there.

    Raises:
        DataError: the folder holds a run, and `resume` is not set, or the run has another config
            or is of another kind.
    """
    file = out / CONFIG_FILE
    if not file.is_file():
        write_text(file, yaml.safe_dump(to_dict(config), sort_keys=False))
        return
    if not resume:
        raise DataError(f"{out} holds a run already. Go on with --resume, or take another --out")
    try:
        begun = to_dict(from_dict(type(config), load_yaml(file), str(file)))
    except ConfigError as error:
        raise DataError(
            f"{out} holds a run of another kind, or one that was changed: {error} Take another "
            "--out"
        ) from error
    new = to_dict(config)
    for key, value in begun.items():
        if value != new[key]:
            raise DataError(
                f"{out} was begun with {key}={value}, but is to go on with {new[key]}. Use "
                "the old value, or take another --out"
            )


def _card(config: AgentConfig, world: World) -> PolicyCard:
    data: dict[str, Any] = world.card.get("provenance", {}).get("data", {})
    return PolicyCard(
        game=world.config.game,
        height=world.config.height,
        width=world.config.width,
        num_actions=world.num_actions,
        algo=config.algo,
        network=config.network,
        tokenizer=world.config.tokenizer if config.algo == "dreamer" else None,
        world=config.env.world or config.env.game.lower(),
        world_hash=world_hash(world),
        imagined_steps=0,
        # An episode has one frame more than steps.
        real_steps=data.get("num_frames", 0) - data.get("num_episodes", 0),
        check_steps=0,
        seed=config.seed,
    )


def _continued(card: PolicyCard, former: PolicyCard, init_from: str) -> PolicyCard:
    """Return the card of a policy that begins with a former one's weights and counts its steps."""
    for key in ("game", "height", "width", "num_actions", "algo", "network", "tokenizer"):
        old, new = getattr(former, key), getattr(card, key)
        if old != new:
            raise PolicyError(
                f"init_from: the policy {init_from} has {key}={old}, but this run has {new}. Use "
                "the old value, or begin without init_from"
            )
    return replace(
        card,
        imagined_steps=former.imagined_steps,
        # Not their sum: both worlds may have learned from the same play.
        real_steps=max(former.real_steps, card.real_steps),
        check_steps=former.check_steps,
    )
