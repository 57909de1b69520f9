"""A trained policy as a folder of `policy.json` and `policy.safetensors`, and how it is asked."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from genie_gym.agents.algorithms import make_policy
from genie_gym.agents.config import Algo, NetworkConfig
from genie_gym.agents.dreamer_network import TokenNetwork, TokenPolicy
from genie_gym.agents.observations import begin_stack, grey, push
from genie_gym.config import from_dict, to_dict
from genie_gym.errors import ConfigError, PolicyError
from genie_gym.files import replacing
from genie_gym.models.bundle import PACKAGED_WORLDS, choose_device
from genie_gym.models.tokenizer import Tokenizer, TokenizerConfig

POLICY_VERSION = 1
CARD_FILE, WEIGHTS_FILE = "policy.json", "policy.safetensors"
RUN_SUBFOLDER = "policy"
"""Where a run folder keeps its newest policy."""

State = tuple[UInt8[np.ndarray, "B K H W"] | Int64[np.ndarray, "B K S"], Any]
"""The frames seen last, grey or as tokens, and what the network itself remembers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyCard:
    """What a policy is, and where it was trained."""

    game: str
    """Name of the ALE game."""
    height: int
    """Rows of a frame."""
    width: int
    """Columns of a frame."""
    num_actions: int
    """Size of the game's minimal action set."""
    algo: Algo
    """Algorithm that trained it."""
    network: NetworkConfig
    """Shape of its network."""
    world: str
    """Name or folder of the world it was trained in."""
    world_hash: str
    """What `genie_gym.envs.replay.world_hash` gave for that world, in the run's dtype."""
    imagined_steps: int
    """Steps it was trained on, all of them imagined, those of the policy it began from included."""
    real_steps: int
    """Real steps that its world was trained on, or that of the policy it began from if more."""
    check_steps: int
    """Real steps played to judge it while it trained, and the policy it began from; none of them
    trained anything."""
    seed: int
    """Seed of its run."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What was measured of it."""
    weights_hash: str | None = None
    """SHA-256 of its weights, which `save_policy` and `load_policy` fill in: a kill between the two
    files must not give one policy the card of another. None in the first cards."""
    tokenizer: TokenizerConfig | None = None
    """Shape of the tokenizer that comes with a policy of tokens; None with one of pixels."""
    version: int = POLICY_VERSION
    """Version of the file format."""

    def __post_init__(self) -> None:
        """Check that a policy of tokens has what makes them."""
        if (self.algo == "dreamer") != (self.tokenizer is not None):
            raise ConfigError(
                f"tokenizer must be given for algo 'dreamer' and for no other, got "
                f"{self.tokenizer} with {self.algo!r}"
            )


class Policy:
    """Plays single frames with the signature of SB3's `predict`.

    It keeps the frames of its past in `state`; `generator` draws its actions, so that seeding it
    repeats a game.

    Args:
        card: what it is.
        network: SB3's policy or a `TokenPolicy`, trained, on the device to run on.
    """

    def __init__(self, card: PolicyCard, network: nn.Module) -> None:
        self.card = card
        self.generator = torch.Generator()
        self.network: Any = network.eval()

    def predict(
        self,
        obs: Shaped[np.ndarray, "*batch H W C"],
        state: State | None = None,
        episode_start: Bool[np.ndarray, " B"] | None = None,
        deterministic: bool = False,
    ) -> tuple[Int64[np.ndarray, "*batch"], State]:
        """Return an action for every newest frame, and the state for the next call.

        Args:
            obs: one frame (H, W, 3) or a batch of them.
            state: what the call before returned; None if all games have just begun.
            episode_start: which games have just begun.
            deterministic: whether to take the likeliest action instead of drawing one.

        Raises:
            PolicyError: the frames are not uint8 of the size that the policy was trained on.
        """
        obs = np.asarray(obs)
        size = (self.card.height, self.card.width, 3)
        if obs.dtype != np.uint8 or obs.ndim not in (3, 4) or obs.shape[-3:] != size:
            raise PolicyError(
                f"this policy sees uint8 frames of {size}, or batches of them, got {obs.dtype} "
                f"{obs.shape}. Take one trained on such frames"
            )
        frames = obs.reshape(-1, *size)
        if state is None:
            stack, inner, starts = None, None, np.ones(len(frames), np.bool_)
        else:
            starts = np.zeros(len(frames), np.bool_) if episode_start is None else episode_start
            stack, inner = state
        if isinstance(self.network, TokenPolicy):
            newest, inner = self.network.look(frames, inner, starts)
        else:
            newest = grey(frames)
        fresh = begin_stack(newest, self.card.network.num_frames)
        is_first = starts.reshape(-1, *[1] * newest.ndim)
        stack = fresh if stack is None else np.where(is_first, fresh, push(stack, newest))
        # SB3 draws from torch's global numbers, which are not ours to move.
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.generator.get_state())
            actions, inner = self.network.predict(stack, inner, starts, deterministic)
            self.generator.set_state(torch.get_rng_state())
        return np.asarray(actions, np.int64).reshape(obs.shape[:-3]), (stack, inner)

    @property
    def has_critic(self) -> bool:
        """Whether `value` is there: PPO and A2C have a critic of stacked frames."""
        return self.card.algo in ("ppo", "a2c")

    @torch.no_grad()
    def value(self, state: State) -> Float64[np.ndarray, " B"]:
        """Return the discounted return that the critic expects of every game.

        Args:
            state: what `predict` returned with the newest frames.

        Raises:
            PolicyError: it has no critic.
        """
        if not self.has_critic:
            raise PolicyError(
                f"a policy of {self.card.algo!r} has no critic of frames: those of ppo and a2c have"
            )
        stack, _ = self.network.obs_to_tensor(state[0])
        values: np.ndarray = self.network.predict_values(stack)[:, 0].double().cpu().numpy()
        return values

    def check_spaces(self, obs_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Refuse an environment of other frames or actions.

        Raises:
            PolicyError: they are not those the policy was trained with.
        """
        card = self.card
        frames = gym.spaces.Box(0, 255, (card.height, card.width, 3), np.uint8)
        if obs_space != frames:
            raise PolicyError(
                f"this policy of {card.game} sees {frames}, but the environment shows {obs_space}. "
                "Make an environment of that frame size, or train a policy on this one"
            )
        if action_space != gym.spaces.Discrete(card.num_actions):
            raise PolicyError(
                f"this policy of {card.game} has {card.num_actions} actions, but the environment "
                f"takes {action_space}. Take an environment of {card.game} with its minimal "
                "action set"
            )


def save_policy(folder: Path, card: PolicyCard, weights: Mapping[str, Tensor]) -> None:
    """Write a policy; files appear under their names only when they are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: x.detach().cpu().contiguous() for name, x in _unshared(weights).items()}
    content = save(tensors)
    card = replace(card, weights_hash=hashlib.sha256(content).hexdigest())
    with replacing(folder / WEIGHTS_FILE) as weights_part, replacing(folder / CARD_FILE) as part:
        weights_part.write_bytes(content)
        part.write_text(json.dumps(to_dict(card), indent=1) + "\n")


def load_policy(policy: str | Path, device: str = "cpu") -> Policy:
    """Return a trained policy.

    Args:
        policy: name of a shipped one ("pong"), a policy's folder, or the folder of a run, whose
            newest policy is taken.
        device: "cpu", "cuda", "cuda:1" or "auto".

    Raises:
        PolicyError: there is none, or its files are damaged or do not fit each other.
        MissingExtraError: it needs a package that is not installed.
        DeviceError: the device is not there.
    """
    folder = find_policy(policy)
    card = read_card(folder)
    with torch.random.fork_rng(devices=[]):  # initial weights must not move the caller's numbers
        network = _untrained(card)
    try:
        content = (folder / WEIGHTS_FILE).read_bytes()
        weights_hash = hashlib.sha256(content).hexdigest()
        if card.weights_hash not in (None, weights_hash):
            raise RuntimeError(f"their SHA-256 is not {card.weights_hash}.")
        weights = load(content)
        if odd := sorted(weights.keys() ^ _unshared(network.state_dict()).keys()):
            raise RuntimeError(f"{len(odd)} tensors are missing or unknown, the first {odd[0]!r}.")
        network.load_state_dict(weights, strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise PolicyError(
            f"{folder / WEIGHTS_FILE} is missing, damaged, or of another network than {CARD_FILE} "
            f"says: {str(error).splitlines()[0]} Train the policy again"
        ) from error
    card = replace(card, weights_hash=weights_hash)
    return Policy(card, network.to(choose_device(device)))


def has_policy(folder: Path) -> bool:
    """Return whether a folder, for example a world's, holds a policy."""
    return (folder / CARD_FILE).is_file()


def find_policy(policy: str | Path) -> Path:
    """Return the folder of a policy.

    Raises:
        PolicyError: there is none; the text names the command that trains one.
    """
    name = str(policy)
    candidates = [Path(name), Path(name) / RUN_SUBFOLDER, PACKAGED_WORLDS / name.lower()]
    for folder in candidates:
        if has_policy(folder):
            return folder
    raise PolicyError(
        f"no policy {name!r}: no {CARD_FILE} in {[str(folder) for folder in candidates]}. Train "
        f"one: genie-gym agent train --world pong --algo ppo --steps 1000000 --out {name}"
    )


def _untrained(card: PolicyCard) -> nn.Module:
    if card.tokenizer is None:
        size = (card.height, card.width)
        network: nn.Module = make_policy(card.algo, card.network, size, card.num_actions)
        return network
    tokenizer = Tokenizer(
        card.tokenizer, height=card.height, width=card.width, generator=torch.Generator()
    )
    return TokenPolicy(tokenizer, TokenNetwork(card.network, tokenizer, card.num_actions))


def _unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return every tensor under the first of its names; SB3 keeps a shared extractor under three.

    safetensors refuses tensors that share memory.
    """
    unshared: dict[int, tuple[str, Tensor]] = {}
    for name, x in weights.items():
        unshared.setdefault(x.data_ptr(), (name, x))
    return dict(unshared.values())


def read_card(folder: Path) -> PolicyCard:
    """Return a policy's card.

    Raises:
        PolicyError: it is damaged, or of a version this package does not read.
    """
    file = folder / CARD_FILE
    try:
        content = json.loads(file.read_text())
        version = content.get("version")
        if version != POLICY_VERSION:
            raise PolicyError(
                f"{file} has version {version!r}; this genie_gym reads {POLICY_VERSION}. Upgrade "
                "genie_gym or train the policy again"
            )
        return from_dict(PolicyCard, content, str(file))
    except (AttributeError, ConfigError, ValueError) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"{file} is no policy's card: {error}") from error
