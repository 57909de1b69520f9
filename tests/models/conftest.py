"""The moving square: a world so small that every part of the stack has a known right answer.

A 16 x 16 frame holds a white square of 4 x 4 pixels on a 7 x 7 grid of places, two pixels apart.
Four moves push it up, down, left and right; the border stops it. A push against the border earns
1. A move that leaves it in the top left corner ends the game.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from genie_gym.data.batch import Batch, to_float
from genie_gym.models.action_map import ActionMap, ActionMapConfig
from genie_gym.models.dynamics import DynamicsConfig
from genie_gym.models.latent_action import LatentActionConfig
from genie_gym.models.reward import RewardConfig
from genie_gym.models.stack import STAGES, GenieStack, StackConfig
from genie_gym.models.state import Starts
from genie_gym.models.tokenizer import TokenizerConfig
from genie_gym.models.world import World
from genie_gym.nn.quantizer import QuantizerConfig
from genie_gym.nn.transformer import TransformerConfig

FRAME_SIZE, SQUARE_SIZE, STRIDE = 16, 4, 2
MOVES = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])


@dataclass(frozen=True)
class MovingSquare:
    """The rules, and clips of play drawn by them."""

    num_rows: int = 7
    num_columns: int = 7
    num_actions: int = len(MOVES)

    def all_places(self):
        """Return every place the square can be in: (49, 2) rows and columns."""
        return torch.cartesian_prod(torch.arange(self.num_rows), torch.arange(self.num_columns))

    def all_transitions(self):
        """Return every place with every action: (196, 2) and (196,)."""
        places = self.all_places()
        return (
            places.repeat_interleave(self.num_actions, 0),
            torch.arange(self.num_actions).repeat(len(places)),
        )

    def move(self, places, actions):
        """Return where the moves lead, what they earn, and whether they end the game."""
        wanted = places + MOVES[actions]
        last = torch.tensor([self.num_rows - 1, self.num_columns - 1])
        reached = wanted.clamp(torch.zeros_like(last), last)
        rewards = (wanted != reached).any(-1).float()
        return reached, rewards, (reached == 0).all(-1)

    def draw(self, places):
        """Return frames of the square in these places: uint8 (..., 16, 16, 3)."""
        pixels = torch.arange(FRAME_SIZE)
        corner = places[..., None] * STRIDE
        inside = (pixels >= corner) & (pixels < corner + SQUARE_SIZE)
        picture = inside[..., 0, :, None] & inside[..., 1, None, :]
        return (picture[..., None].expand(*picture.shape, 3) * 255).to(torch.uint8)

    def play(self, places, actions):
        """Return clips that begin in `places` (B, 2) and take `actions` (B, T - 1), and the way."""
        way, rewards, ends = [places], [], []
        for step in range(actions.shape[1]):
            places, reward, end = self.move(places, actions[:, step])
            way.append(places)
            rewards.append(reward)
            ends.append(end)
        batch = Batch(
            frames=self.draw(torch.stack(way, 1)),
            actions=actions,
            rewards=torch.stack(rewards, 1),
            terminations=torch.stack(ends, 1),
        )
        return batch, torch.stack(way, 1)

    def clips(self, num_clips, num_frames, generator, places=None):
        """Return clips of random play from random places, or from the given ones."""
        if places is None:
            places = self.all_places()
        chosen = torch.randint(len(places), (num_clips,), generator=generator)
        shape = (num_clips, num_frames - 1)
        actions = torch.randint(self.num_actions, shape, generator=generator)
        return self.play(places[chosen], actions)[0]


@pytest.fixture(scope="session")
def moving_square():
    return MovingSquare()


def small_transformer(**changes):
    shape = {"num_layers": 1, "dim": 32, "num_heads": 2, "head_dim": 16, "temporal_window": 1}
    return TransformerConfig(**{**shape, **changes})


def square_config():
    return StackConfig(
        game="MovingSquare",
        num_actions=4,
        height=FRAME_SIZE,
        width=FRAME_SIZE,
        tokenizer=TokenizerConfig(
            patch_size=8,
            encoder=small_transformer(),
            decoder=small_transformer(temporal_window=2),
            quantizer=QuantizerConfig(num_codes=40, code_dim=16, decay=0.9, dead_usage=0.02),
        ),
        lam=LatentActionConfig(
            patch_size=16,
            encoder=small_transformer(dim=64),
            decoder=small_transformer(dim=64),
            quantizer=QuantizerConfig(
                num_codes=8, code_dim=12, decay=0.95, dead_usage=0.1, commitment_weight=1.0
            ),
        ),
        dynamics=DynamicsConfig(
            transformer=small_transformer(dim=64, temporal_window=3),
            group_size=2,
            max_corruption=0.0,
            change_weight=1.0,
            num_near_codes=1,
            num_maskgit_steps=2,
            temperature=0.0,
        ),
        reward=RewardConfig(
            transformer=small_transformer(dim=48, temporal_window=2), reward_classes=(0.0, 1.0)
        ),
    )


def fit(module, batch_at, num_steps, learning_rate):
    """Train with plain AdamW whose rate falls to zero."""
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    module.train()
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / num_steps)
        loss, _ = module(batch_at(step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return module.eval().requires_grad_(False)


def rename(actions):
    """Return the latent action that stands for a real one; the other codes are left over."""
    return (actions + 1) % len(MOVES)


@pytest.fixture(scope="session")
def square_generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def square_stack(square_generator):
    """A stack for the moving square, not yet trained; the fixtures below train its parts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GenieStack(square_config(), generator=square_generator)


@pytest.fixture(scope="session")
def square_tokenizer(square_stack, moving_square, square_generator):
    def batch_at(step):
        return moving_square.clips(32, 2, square_generator)

    return fit(square_stack.tokenizer, batch_at, num_steps=150, learning_rate=3e-3)


@pytest.fixture(scope="session")
def half_square():
    """Play in the left half of the frame alone: the LAM's moments of motion are taken by halves."""
    return MovingSquare(num_columns=3)


@pytest.fixture(scope="session")
def square_lam(square_stack, half_square, square_generator):
    def batch_at(step):
        return half_square.clips(32, 3, square_generator)

    return fit(square_stack.lam, batch_at, num_steps=200, learning_rate=3e-3)


@pytest.fixture(scope="session")
def square_clips(moving_square, square_tokenizer, square_generator):
    """Return a function that draws clips of tokens, with a renaming of the moves as latents."""
    places = moving_square.all_places()
    codes = square_tokenizer.encode(to_float(moving_square.draw(places))[:, None])[:, 0]

    def tokens_of(way):
        return codes[way[..., 0] * moving_square.num_columns + way[..., 1]]

    def draw(num_clips, num_frames, places=places, generator=square_generator):
        chosen = torch.randint(len(places), (num_clips,), generator=generator)
        shape = (num_clips, num_frames - 1)
        actions = torch.randint(moving_square.num_actions, shape, generator=generator)
        batch, way = moving_square.play(places[chosen], actions)
        return replace(batch, tokens=tokens_of(way), latent_actions=rename(actions))

    return draw


@pytest.fixture(scope="session")
def training_places(moving_square):
    """Places that training clips begin in: all but every fifth."""
    places = moving_square.all_places()
    return places[torch.arange(len(places)) % 5 != 0]


@pytest.fixture(scope="session")
def square_dynamics(square_stack, square_tokenizer, square_clips, training_places):
    square_stack.dynamics.set_codebook(square_tokenizer.quantizer.codebook)

    def batch_at(step):
        return square_clips(24, 6, training_places)

    return fit(square_stack.dynamics, batch_at, num_steps=800, learning_rate=1e-2)


@pytest.fixture(scope="session")
def square_reward(square_stack, square_tokenizer, square_clips, training_places):
    square_stack.reward.set_codebook(square_tokenizer.quantizer.codebook)

    def batch_at(step):
        return square_clips(32, 5, training_places)

    return fit(square_stack.reward, batch_at, num_steps=300, learning_rate=3e-3)


@pytest.fixture(scope="session")
def square_action_map(square_clips):
    """Learned from 24 labelled moves, in which each is drawn at least once."""
    batch = square_clips(24, 2, generator=torch.Generator().manual_seed(0))
    config = ActionMapConfig(num_labels=24)
    module = ActionMap(config, num_actions=len(MOVES), num_codes=8)
    return fit(module, lambda step: batch, num_steps=30, learning_rate=0.2)


@pytest.fixture(scope="session")
def square_world(square_stack, square_dynamics, square_reward, square_lam, moving_square):
    """The whole trained stack as a world; it starts with the square in every place."""
    tokens = square_stack.tokenizer.encode(
        to_float(moving_square.draw(moving_square.all_places()))[:, None]
    )
    starts = Starts(tokens, torch.zeros(len(tokens), 0, dtype=torch.int64))
    return World(square_stack, starts, parts=frozenset(STAGES), card={})


def untrained_config():
    """A world of 3 x 4 tokens whose every part remembers; the frame is padded to 24 x 32."""
    return StackConfig(
        num_actions=6,
        height=20,
        width=28,
        tokenizer=TokenizerConfig(
            patch_size=8,
            encoder=small_transformer(temporal_window=2),
            decoder=small_transformer(temporal_window=3),
            quantizer=QuantizerConfig(num_codes=32, code_dim=8),
        ),
        lam=LatentActionConfig(
            patch_size=8,
            encoder=small_transformer(),
            decoder=small_transformer(),
            quantizer=QuantizerConfig(num_codes=5, code_dim=12),
        ),
        dynamics=DynamicsConfig(
            transformer=small_transformer(temporal_window=3), num_maskgit_steps=3
        ),
        reward=RewardConfig(transformer=small_transformer(temporal_window=2)),
    )


def build_untrained_stack(seed=0):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        stack = GenieStack(untrained_config(), generator=torch.Generator().manual_seed(seed))
        # Untrained answers are nearly the same everywhere; apart, every mistake shows.
        for part in (stack.dynamics, stack.reward):
            part.code_offset.normal_()
            part.embed_action.weight.mul_(3)
        stack.tokenizer.quantizer.payload.uniform_()
    return stack


def build_starts():
    generator = torch.Generator().manual_seed(3)
    return Starts(
        torch.randint(32, (7, 4, 12), generator=generator),
        torch.randint(6, (7, 3), generator=generator),
    )


@pytest.fixture(scope="session")
def build_untrained_world():
    """Return a function that builds an untrained world with the named parts."""

    def build(parts=STAGES, seed=0):
        return World(
            build_untrained_stack(seed), build_starts(), parts=frozenset(parts), card={"made": "up"}
        )

    return build


@pytest.fixture(scope="session")
def untrained_world(build_untrained_world):
    return build_untrained_world()
