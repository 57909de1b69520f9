"""Reward and termination heads: what a step earned and whether it ended the game, from tokens."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError
from genie_gym.models.tokenizer import Metrics
from genie_gym.nn.attention import TemporalCache
from genie_gym.nn.patches import TokenGrid
from genie_gym.nn.quantizer import whiten
from genie_gym.nn.transformer import SpatialPositions, STTransformer, TransformerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardConfig:
    """Shape of the reward model and its classes."""

    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(num_layers=2, dim=64, temporal_window=4)
    )
    """The network; its temporal window is the memory of the heads."""
    group_size: int = 1
    """Side of the square of tokens that share one position of the network, as in the dynamics."""
    reward_classes: tuple[float, ...] = (-1.0, 0.0, 1.0)
    """Rewards a step can earn; training rewards go to the nearest class."""
    action_dropout: float = 0.1
    """Share of training clips without actions, as when latent actions drive the world."""
    event_share: float = 0.5
    """Share of training clips that are laid around a reward or an end; the rest are drawn as they
    come. The heads' biases undo this afterwards, so that the expected reward is nearly
    unbiased."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.group_size < 1:
            raise ConfigError(f"reward.group_size must be at least 1, got {self.group_size}")
        if len(self.reward_classes) < 2 or list(self.reward_classes) != sorted(self.reward_classes):
            raise ConfigError(
                "reward.reward_classes must be two or more rising numbers, got "
                f"{list(self.reward_classes)}"
            )
        if not 0 <= self.event_share < 1:
            raise ConfigError(f"reward.event_share must lie in [0, 1), got {self.event_share}")


@dataclass(frozen=True, slots=True)
class RewardPrediction:
    """What the heads say of one transition a row."""

    reward_probs: Float[Tensor, "*batch classes"]
    terminated_prob: Float[Tensor, "*batch"]


class RewardModel(nn.Module):
    """Reads (tokens t, action, tokens t + 1) with a short memory; answers with classes.

    Source:
        Classes instead of a regression follow DIAMOND (Alonso et al. 2024) and IRIS (Micheli et
        al. 2023). The Genie paper has no reward model. Undoing the balanced sampling in the
        logits is the prior correction of Saerens et al. 2002.
    """

    classes: Float[Tensor, " classes"]
    reward_correction: Float[Tensor, " classes"]
    end_correction: Float[Tensor, " two"]
    codebook: Float[Tensor, "codes code_dim"]

    def __init__(
        self,
        config: RewardConfig,
        *,
        codebook: Float[Tensor, "codes code_dim"],
        rows: int,
        columns: int,
        num_actions: int,
        generator: torch.Generator,
    ) -> None:
        """Build it for one codebook, one grid of tokens and one action set."""
        super().__init__()
        self.config = config
        self.generator = generator
        dim = config.transformer.dim
        self.grid = TokenGrid(rows, columns, config.group_size)
        num_classes = len(config.reward_classes)
        self.register_buffer("classes", torch.tensor(config.reward_classes))
        self.register_buffer("reward_correction", torch.zeros(num_classes))
        self.register_buffer("end_correction", torch.zeros(2))
        self.register_buffer("codebook", torch.zeros_like(codebook), persistent=False)
        self.set_codebook(codebook)
        self.embed_code = nn.Linear(codebook.shape[1], dim)
        self.code_offset = nn.Parameter(torch.randn(len(codebook), dim) * 0.02)
        self.embed_change = nn.Linear(dim, dim, bias=False)
        self.embed_action = nn.Embedding(1 + num_actions, dim)
        self.join_group = nn.Linear(config.group_size**2 * dim, dim)
        self.positions = SpatialPositions(self.grid.group_rows, self.grid.group_columns, dim)
        self.transformer = STTransformer(config.transformer)
        self.to_reward = nn.Linear(dim * self.grid.num_groups, num_classes)
        self.to_end = nn.Linear(dim * self.grid.num_groups, 2)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the loss on clips of tokens, and the recall of every class that occurs in them."""
        assert batch.tokens is not None and batch.actions is not None
        assert batch.rewards is not None and batch.terminations is not None
        reward_logits, end_logits = self._logits(batch.tokens, self._drop(batch.actions))
        rewards = self.nearest_class(batch.rewards)
        ends = batch.terminations.long()
        reward_loss = F.cross_entropy(
            rearrange(reward_logits, "B T c -> (B T) c"), rewards.flatten()
        )
        end_loss = F.cross_entropy(rearrange(end_logits, "B T c -> (B T) c"), ends.flatten())

        predicted = reward_logits.argmax(-1)
        metrics = {"reward_loss": reward_loss.item(), "end_loss": end_loss.item()}
        for index, value in enumerate(self.config.reward_classes):
            is_class = rewards == index
            if is_class.any():
                found = (predicted[is_class] == index).float().mean()
                metrics[f"recall_{value:g}"] = found.item()
        return reward_loss + end_loss, metrics

    @torch.no_grad()
    def set_codebook(self, codebook: Float[Tensor, "codes code_dim"]) -> None:
        """Take over a trained codebook, whitened."""
        self.codebook.copy_(whiten(codebook))

    def nearest_class(self, rewards: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """Return the index of the class nearest to each reward."""
        return (rewards[..., None] - self.classes.to(rewards.device)).abs().argmin(-1)

    @torch.no_grad()
    def correct_for(
        self,
        trained: tuple[Float[Tensor, " classes"], Float[Tensor, " two"]],
        recorded: tuple[Float[Tensor, " classes"], Float[Tensor, " two"]],
    ) -> None:
        """Undo the balanced sampling: class shares it showed, and shares in the recording."""
        for correction, shown, real in zip(
            (self.reward_correction, self.end_correction), trained, recorded, strict=True
        ):
            # A class that never occurs must stay improbable, not impossible to compute.
            correction.copy_((real.clamp(min=1e-7) / shown.clamp(min=1e-7)).log())

    def empty_cache(self, batch_size: int) -> TemporalCache:
        """Return a cache that holds no frame."""
        return self.transformer.empty_cache(batch_size, self.grid.num_groups)

    def step(
        self,
        tokens: Int[Tensor, "B S"],
        last: Int[Tensor, "B S"],
        actions: Int[Tensor, " B"],
        cache: TemporalCache,
        table: Float[Tensor, "codes D"],
    ) -> tuple[RewardPrediction, TemporalCache]:
        """Return what the step into a new frame earned, and the cache that remembers it.

        Args:
            tokens: the new frame.
            last: the frame before; a first frame stands for it itself.
            actions: the real action that led to it; -1 where there is none.
            cache: the frames before.
            table: what `code_embeddings` gives, computed once for many steps.
        """
        embedded = self._embed(tokens[:, None], last[:, None], actions[:, None], table)
        features, cache = self.transformer.step(embedded, cache)
        features = features.flatten(1)
        reward_logits = self.to_reward(features) + self.reward_correction
        end_logits = self.to_end(features) + self.end_correction
        prediction = RewardPrediction(reward_logits.softmax(-1), end_logits.softmax(-1)[..., 1])
        return prediction, cache

    def _drop(self, actions: Int[Tensor, "B steps"]) -> Int[Tensor, "B steps"]:
        if not self.training:
            return actions
        draws = torch.rand(len(actions), 1, generator=self.generator).to(actions.device)
        return torch.where(draws < self.config.action_dropout, -1, actions)

    def _logits(
        self, tokens: Int[Tensor, "B T S"], actions: Int[Tensor, "B T-1"]
    ) -> tuple[Float[Tensor, "B T-1 classes"], Float[Tensor, "B T-1 two"]]:
        led_by = F.pad(actions, (1, 0), value=-1)
        last = torch.cat([tokens[:, :1], tokens[:, :-1]], dim=1)
        embedded = self._embed(tokens, last, led_by, self.code_embeddings())
        features = self.transformer(embedded)[:, 1:].flatten(2)
        return self.to_reward(features).float(), self.to_end(features).float()

    def code_embeddings(self) -> Float[Tensor, "codes D"]:
        """Return the embedding of every code."""
        out: Tensor = self.embed_code(self.codebook) + self.code_offset
        return out

    def _embed(
        self,
        tokens: Int[Tensor, "B T S"],
        last: Int[Tensor, "B T S"],
        actions: Int[Tensor, "B T"],
        table: Float[Tensor, "codes D"],
    ) -> Float[Tensor, "B T groups D"]:
        embedded = F.embedding(tokens, table)
        # A score that counts up is a change of tokens that hardly ever change.
        change = self.embed_change(embedded - F.embedding(last, table))
        action: Tensor = self.embed_action(actions + 1)[:, :, None]
        joined = self.join_group(self.grid.join(embedded + change))
        out: Tensor = joined + self.positions() + action
        return out


def class_shares(
    indices: Int[Tensor, "*batch"] | Bool[Tensor, "*batch"], num_classes: int
) -> Float[Tensor, " classes"]:
    """Return the share of each class among the indices."""
    counts = torch.bincount(indices.flatten().long(), minlength=num_classes).float()
    return counts / counts.sum()
