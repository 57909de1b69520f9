"""Free rollouts of a world beside held-out play: what all the instruments look at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int64, UInt8
from torch import Tensor

from genie_gym.data.hdf5 import COLUMNS, Recording, Rows
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import DataError
from genie_gym.games import game_of
from genie_gym.models.state import WorldState
from genie_gym.models.world import ActionSource, World

OUTCOMES = ("rewards", "terminations")
"""What a recording may lack: then nothing is said of rewards and ends."""
WINDOWS_AT_ONCE = 64
"""Windows imagined together: more are no faster on a CPU."""


@dataclass(frozen=True, slots=True)
class Heldout:
    """Play that a world has not learned from."""

    path: Path
    """Where it was recorded."""
    rows: Rows
    """All of it, in memory; a video has no actions, and rewards and ends may be lacking."""
    windows: EpisodeWindows
    """Cuts windows from the rows."""
    num_episodes: int
    """Number of episodes."""

    @property
    def why_no_actions(self) -> str | None:
        """Return why nothing can be played as it was played here; None if it can."""
        if self.rows.actions is None:
            return f"{self.path.name} is a video: it does not say which actions were taken"
        return None

    @property
    def why_no_rewards(self) -> str | None:
        """Return why it is not known what the actions earned and ended; None if it is."""
        if lacking := [name for name in OUTCOMES if getattr(self.rows, name) is None]:
            return f"{self.path.name} has no {' and no '.join(lacking)}"
        return None


@dataclass(frozen=True, slots=True)
class Rollouts:
    """N windows of held-out play, and what a world imagined in their place.

    After the context the world saw nothing but its own frames, under the recorded actions unless
    others were asked for. Step k of a rollout is index k - 1.
    """

    starts: Int64[np.ndarray, " N"]
    """Row of each window's first context frame."""
    context: UInt8[np.ndarray, "N context H W C"]
    """Real frames before the first imagined one."""
    actions: Int64[np.ndarray, "N T"]
    """Action that led to each imagined frame."""
    real: UInt8[np.ndarray, "N T H W C"]
    """What the real game showed after each step, under the recorded actions."""
    imagined: UInt8[np.ndarray, "N T H W C"]
    """What the world showed."""
    tokens: Int[np.ndarray, "N T S"]
    """Tokens of the imagined frames."""
    rewards: Float32[np.ndarray, "N T"] | None
    """What each recorded action earned; None where the recording does not say."""
    terminations: Bool[np.ndarray, "N T"] | None
    """Whether it ended the game; None likewise."""
    reward_probs: Float32[np.ndarray, "N T classes"]
    """Chance of each of the world's reward classes."""
    terminated_prob: Float32[np.ndarray, "N T"]
    """Chance that the game ended."""


def open_heldout(world: World, path: str | Path) -> Heldout:
    """Load a held-out recording, or a video, and check that it fits the world.

    A video without a word on its game is taken for one of the world's.

    Raises:
        DataError: frames, game or actions are not the world's.
    """
    # The recorder always writes them; what other tools wrote can still be judged in part.
    recording = Recording.open(path, may_lack=[key for key in COLUMNS if key != "actions"])
    config = world.config
    if recording.frame_shape != (config.height, config.width, 3):
        raise DataError(
            f"{path} holds frames of shape {recording.frame_shape}, but the world imagines "
            f"{(config.height, config.width, 3)}: they cannot enter it. Record with --frame-size "
            f"{config.height}"
        )
    env_id = recording.attributes.get("env_id")
    is_unknown = env_id is None and not recording.has_actions
    if not is_unknown and (env_id is None or game_of(str(env_id)) != game_of(config.game)):
        raise DataError(
            f"{path} was recorded in {env_id!r}, but the world imagines {config.game!r}. Record "
            f"held-out play of that game: genie-gym collect {config.game} --seed 2000"
        )
    rows = recording.load()
    if rows.actions is not None and (
        rows.actions.ndim > 1 or rows.actions.max() >= world.num_actions
    ):
        raise DataError(
            f"{path} holds actions that are none of the world's {world.num_actions}: they cannot "
            f"be played in it. Record them here: genie-gym collect {config.game} --seed 2000"
        )
    return Heldout(Path(path), rows, EpisodeWindows(rows), recording.num_episodes)


def lacks(world: World, *parts: str) -> str | None:
    """Return why a world without some parts cannot be measured; None if it has them."""
    if lacking := sorted(set(parts) - world.parts):
        return f"the world has no trained {lacking}: genie-gym train --stage ..., then export"
    return None


def why_no_rollouts(world: World, heldout: Heldout) -> str | None:
    """Return why the world cannot be rolled out under recorded actions; None if it can."""
    return lacks(world, "dynamics", "reward") or heldout.why_no_actions


def roll_out(
    world: World,
    heldout: Heldout,
    starts: Int64[np.ndarray, " N"],
    *,
    context_length: int,
    horizon: int,
    seed: int = 0,
    actions: Int64[np.ndarray, "N T"] | None = None,
    context_actions: Int64[np.ndarray, "N past"] | None = None,
    source: ActionSource = "real",
    temperature: float | None = None,
    num_maskgit_steps: int | None = None,
) -> Rollouts:
    """Imagine on from real contexts.

    Args:
        world: the world.
        heldout: where the windows lie.
        starts: first rows of windows of `context_length + horizon` frames.
        context_length: real frames before the first imagined one.
        horizon: imagined steps.
        seed: draws the samples; the same seed gives the same rollouts.
        actions: what to play instead of the recorded actions.
        context_actions: what the context was reached by, of the same `source`; the recorded
            actions by default.
        source: whether the given actions are of the game or latent.
        temperature: sampling temperature; the bundle's by default.
        num_maskgit_steps: refinement steps; the bundle's by default.

    Raises:
        DataError: a window would leave its episode.
    """
    generator = torch.Generator().manual_seed(seed)
    clip = heldout.windows.clip(starts, context_length + horizon)
    last = context_length - 1
    if clip.actions is None:
        assert actions is not None and context_actions is not None
        played, past = actions, context_actions
    else:
        played = clip.actions[:, last:] if actions is None else actions
        past = clip.actions[:, :last] if context_actions is None else context_actions
    past_source: ActionSource = "real" if context_actions is None else source
    options = {"source": source, "temperature": temperature, "num_maskgit_steps": num_maskgit_steps}
    parts = []
    for part in np.array_split(np.arange(len(starts)), -(-len(starts) // WINDOWS_AT_ONCE)):
        frames = torch.from_numpy(clip.frames[part, :context_length])
        state = world.encode(frames, torch.from_numpy(past[part]), past_source)
        parts.append(_imagine(world, state, torch.from_numpy(played[part]), generator, options))
    imagined, tokens, reward_probs, terminated_prob = map(np.concatenate, zip(*parts, strict=True))
    return Rollouts(
        starts=np.asarray(starts, np.int64),
        context=clip.frames[:, :context_length],
        actions=played,
        real=clip.frames[:, context_length:],
        imagined=imagined,
        tokens=tokens,
        rewards=None if clip.rewards is None else clip.rewards[:, last:],
        terminations=None if clip.terminations is None else clip.terminations[:, last:],
        reward_probs=reward_probs,
        terminated_prob=terminated_prob,
    )


def _imagine(
    world: World,
    state: WorldState,
    actions: Int[Tensor, "N T"],
    generator: torch.Generator,
    options: dict[str, Any],
) -> list[np.ndarray]:
    """Return frames, tokens, reward and end probabilities of every step, (N T ...) each."""
    steps = []
    for action in actions.unbind(1):
        result = world.imagine(state, action, generator, **options)
        state, prediction = result.state, result.prediction
        probs = prediction.reward_probs.float(), prediction.terminated_prob.float()
        steps.append((world.decode(state), state.tokens, *probs))
    return [torch.stack(values, dim=1).cpu().numpy() for values in zip(*steps, strict=True)]
