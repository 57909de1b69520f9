"""MaskGIT dynamics: the tokens of the next frame from past tokens and an action.

- Two streams run through one set of weights. The whole stream holds past frames as they are and
  feeds the temporal keys and values; the masked stream holds the frames to predict, partly
  hidden, and reads them. All frames of a clip are targets at once, and since the past is whole in
  training as it is in use, the ring cache is exact.
- Token embeddings, in and out, start from the codebook, so that near codes have near embeddings
  and share probability.
- Past tokens are sometimes wrong in training, so that a wrong one in a rollout does not spread.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError
from genie_gym.models.tokenizer import Metrics
from genie_gym.nn.attention import TemporalCache
from genie_gym.nn.masking import Generators, num_hidden, random_mask, sample_codes, uniform
from genie_gym.nn.transformer import (
    SpatialPositions,
    STTransformer,
    TransformerConfig,
    causal_window_mask,
)

STILL_SHARE = 0.25
"""Share of unchanged tokens that are scored in training; logits are a third of a step's cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicsConfig:
    """Shape of the dynamics and how it is trained and sampled."""

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    """The network; its temporal window is what the world remembers directly."""
    group_size: int = 1
    """Side of the square of tokens that share one position of the network: 2 makes it see a frame
    of 8 x 8 tokens as 4 x 4, at a quarter of the cost. Tokens are still hidden one by one."""
    action_injection: Literal["add", "prepend"] = "add"
    """Action added to every token (the paper), or put before them as a token of its own."""
    min_mask_rate: float = 0.5
    """Lowest share of hidden tokens in training; the highest is 1."""
    latent_prob: float = 0.25
    """Share of training clips that are driven by latent actions instead of real ones."""
    max_corruption: float = 0.15
    """Highest share of past tokens replaced by wrong ones; drawn per clip from 0 to this."""
    change_weight: float = 5.0
    """Extra weight of tokens that differ from the last frame's."""
    num_near_codes: int = 8
    """Codes that share a target, by distance in the codebook; 1 is plain cross-entropy."""
    nearness: float = 0.1
    """Share of a target that goes to its near codes."""
    num_maskgit_steps: int = 8
    """Default number of refinement steps a frame (25 in the paper)."""
    sure_prob: float = 0.98
    """Sampled tokens with at least this probability are revealed at once, ahead of the schedule;
    the steps are left for those in doubt. 1 keeps to the schedule."""
    temperature: float = 1.0
    """Default sampling temperature; 0 takes the likeliest code."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.group_size < 1:
            raise ConfigError(f"dynamics.group_size must be at least 1, got {self.group_size}")
        if self.temperature < 0 or self.change_weight < 0:
            raise ConfigError(
                "dynamics.temperature and change_weight must be 0 or more, got "
                f"{self.temperature} and {self.change_weight}"
            )
        for name in ("min_mask_rate", "latent_prob", "max_corruption", "nearness", "sure_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"dynamics.{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.transformer.temporal_window < 2:
            raise ConfigError(
                "dynamics.transformer.temporal_window must be at least 2 (the last frame and the "
                f"next), got {self.transformer.temporal_window}"
            )
        if self.num_maskgit_steps < 1 or self.num_near_codes < 1:
            raise ConfigError("dynamics.num_maskgit_steps and num_near_codes must be at least 1")


@dataclass(frozen=True, slots=True)
class Grid:
    """Tokens of a frame, and the square groups they form."""

    rows: int
    columns: int
    group_size: int

    def __post_init__(self) -> None:
        """Check that groups fill the frame."""
        if self.rows % self.group_size or self.columns % self.group_size:
            raise ConfigError(
                f"dynamics.group_size must divide the {self.rows} x {self.columns} tokens of a "
                f"frame, got {self.group_size}"
            )

    @property
    def group_rows(self) -> int:
        """Rows of groups."""
        return self.rows // self.group_size

    @property
    def group_columns(self) -> int:
        """Columns of groups."""
        return self.columns // self.group_size

    @property
    def num_groups(self) -> int:
        """Groups a frame."""
        return self.group_rows * self.group_columns

    def join(self, x: Float[Tensor, "B T S D"]) -> Float[Tensor, "B T groups joined"]:
        """Put the features of a group's tokens side by side."""
        pattern = "B T (h g w k) D -> B T (h w) (g k D)"
        sizes = {"h": self.group_rows, "g": self.group_size, "k": self.group_size}
        return rearrange(x, pattern, **sizes)

    def split(self, x: Float[Tensor, "B T groups joined"]) -> Float[Tensor, "B T S D"]:
        """Give every token its part back."""
        pattern = "B T (h w) (g k D) -> B T (h g w k) D"
        sizes = {"h": self.group_rows, "g": self.group_size, "k": self.group_size}
        return rearrange(x, pattern, **sizes)


class Dynamics(nn.Module):
    """Predicts tokens of frame t + 1 from tokens up to t and the action taken at t.

    Source:
        Bruce et al. 2024, "Genie", section 2.1 and Chang et al. 2022, "MaskGIT". Ours: the two
        streams (the paper masks every frame of the input), embeddings from the codebook, wrong
        past tokens as in 1X's world model challenge code, and real actions beside latent ones.
    """

    codebook: Float[Tensor, "codes code_dim"]
    near_codes: Int[Tensor, "codes near"]

    def __init__(
        self,
        config: DynamicsConfig,
        *,
        codebook: Float[Tensor, "codes code_dim"],
        rows: int,
        columns: int,
        num_actions: int,
        num_latent_actions: int,
        generator: torch.Generator,
    ) -> None:
        """Build it for one codebook, one grid of tokens and both sets of actions."""
        super().__init__()
        self.config = config
        self.generator = generator
        self.num_tokens = rows * columns
        self.grid = Grid(rows, columns, config.group_size)
        self.num_actions, self.num_latent_actions = num_actions, num_latent_actions
        dim = config.transformer.dim
        self.register_buffer("codebook", torch.zeros_like(codebook), persistent=False)
        num_near = min(config.num_near_codes, len(codebook))
        near_codes = torch.zeros(len(codebook), num_near, dtype=torch.int64)
        self.register_buffer("near_codes", near_codes, persistent=False)
        self.set_codebook(codebook)

        self.embed_code = nn.Linear(codebook.shape[1], dim)
        self.code_offset = nn.Parameter(torch.randn(len(codebook), dim) * 0.02)
        self.code_bias = nn.Parameter(torch.zeros(len(codebook)))
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        # One table: no action known, then the real actions, then the latent ones.
        self.embed_action = nn.Embedding(1 + num_actions + num_latent_actions, dim)
        self.join_group = nn.Linear(config.group_size**2 * dim, dim)
        self.positions = SpatialPositions(self.grid.group_rows, self.grid.group_columns, dim)
        self.transformer = STTransformer(config.transformer)
        self.to_embeddings = nn.Linear(dim, config.group_size**2 * dim)

    @torch.no_grad()
    def set_codebook(self, codebook: Float[Tensor, "codes code_dim"]) -> None:
        """Take over a trained codebook; its spread is scaled to one."""
        centred = codebook - codebook.mean(0)
        self.codebook.copy_(centred / centred.std().clamp(min=1e-8))
        distances = torch.cdist(self.codebook, self.codebook)
        self.near_codes.copy_(distances.topk(self.near_codes.shape[1], largest=False).indices)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the loss on clips of tokens, and weighted accuracies on the scored hidden ones."""
        assert batch.tokens is not None and batch.actions is not None
        targets, before = batch.tokens[:, 1:], batch.tokens[:, :-1]
        hidden = random_mask(tuple(targets.shape), self.config.min_mask_rate, self.generator)
        hidden = hidden.to(targets.device)
        features = self._two_stream_features(
            self._corrupt(before), targets, hidden, self._draw_actions(batch)
        )
        changed = targets != before
        scored, weights = self._draw_scored(hidden, changed)
        targets, changed = targets[scored], changed[scored]
        logits = self._to_logits(features[scored], self.code_embeddings())

        log_probs = logits.float().log_softmax(-1)
        share = self.config.nearness
        target_log_probs = log_probs.gather(-1, targets[:, None])[:, 0]
        near_log_probs = log_probs.gather(-1, self.near_codes[targets]).mean(-1)
        cross_entropy = -(1 - share) * target_log_probs - share * near_log_probs
        loss = (weights * cross_entropy).sum() / weights.sum().clamp(min=1)

        is_right = logits.argmax(-1) == targets
        metrics = {
            "accuracy": ((weights * is_right).sum() / weights.sum().clamp(min=1)).item(),
            "changed_cross_entropy": -target_log_probs[changed].mean().nan_to_num().item(),
            "changed_accuracy": is_right[changed].float().mean().nan_to_num().item(),
        }
        return loss, metrics

    def two_stream_logits(
        self,
        past: Int[Tensor, "B T S"],
        targets: Int[Tensor, "B T S"],
        hidden: Bool[Tensor, "B T S"],
        actions: Int[Tensor, "B T+1"],
    ) -> Float[Tensor, "B T S codes"]:
        """Return logits for frames 1 ... T of a clip of T + 1 frames, in one pass.

        Args:
            past: frames 0 ... T - 1, whole.
            targets: frames 1 ... T; only tokens that are not hidden are looked at.
            hidden: which target tokens to predict.
            actions: rows of the action table; `actions[:, t]` led to frame t.
        """
        features = self._two_stream_features(past, targets, hidden, actions)
        return self._to_logits(features, self.code_embeddings())

    def _two_stream_features(
        self,
        past: Int[Tensor, "B T S"],
        targets: Int[Tensor, "B T S"],
        hidden: Bool[Tensor, "B T S"],
        actions: Int[Tensor, "B T+1"],
    ) -> Float[Tensor, "B T S D"]:
        num_frames = past.shape[1]
        whole = self._embed(self._embed_tokens(past), actions[:, :-1])
        revealed = torch.where(hidden[..., None], self.mask_token, self._embed_tokens(targets))
        masked = self._embed(revealed, actions[:, 1:])

        times = torch.arange(num_frames, device=past.device)
        positions = torch.cat([times, times + 1])
        window = causal_window_mask(positions, self.config.transformer.temporal_window)
        is_whole = torch.arange(2 * num_frames, device=past.device) < num_frames
        is_self = torch.eye(2 * num_frames, dtype=torch.bool, device=past.device)
        # A masked frame reads whole frames before it and itself, never the whole copy of itself.
        is_earlier = positions[None, :] < positions[:, None]
        mask = window & is_whole[None, :] & (is_whole[:, None] | is_earlier) | is_self
        features = self.transformer(torch.cat([whole, masked], dim=1), positions, mask)
        return self._split_groups(features[:, num_frames:])

    def real_action_rows(self, actions: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """Return the rows of the action table for real actions; -1 stands for not known."""
        return actions + 1

    def latent_action_rows(self, actions: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """Return the rows of the action table for latent actions; -1 stands for not known."""
        return torch.where(actions < 0, 0, actions + 1 + self.num_actions)

    def empty_cache(self, batch_size: int) -> TemporalCache:
        """Return a cache that holds no frame."""
        num_positions = self.grid.num_groups + (self.config.action_injection == "prepend")
        return self.transformer.empty_cache(batch_size, num_positions)

    def append(
        self, tokens: Int[Tensor, "B S"], actions: Int[Tensor, " B"], cache: TemporalCache
    ) -> TemporalCache:
        """Return the cache with one more whole frame; `actions` (table rows) led to it."""
        embedded = self._embed(self._embed_tokens(tokens[:, None]), actions[:, None])[:, 0]
        return self.transformer.step(embedded, cache)[1]

    def step_logits(
        self,
        tokens: Int[Tensor, "B S"],
        hidden: Bool[Tensor, "B S"],
        actions: Int[Tensor, " B"],
        cache: TemporalCache,
        table: Float[Tensor, "codes D"] | None = None,
    ) -> Float[Tensor, "B S codes"]:
        """Return logits of a partly hidden next frame, reached by `actions` (table rows).

        Several calls may share one `table` of `code_embeddings()`.
        """
        if table is None:
            table = self.code_embeddings()
        known = F.embedding(tokens, table)
        revealed = torch.where(hidden[..., None], self.mask_token, known)
        embedded = self._embed(revealed[:, None], actions[:, None])[:, 0]
        features, _ = self.transformer.step(embedded, cache, is_kept=False)
        return self._to_logits(self._split_groups(features[:, None])[:, 0], table)

    def sample(
        self,
        actions: Int[Tensor, " B"],
        cache: TemporalCache,
        *,
        num_steps: int,
        temperature: float,
        generator: Generators | None,
        known: Int[Tensor, "B S"] | None = None,
    ) -> Int[Tensor, "B S"]:
        """Return the tokens of the next frame, revealed over `num_steps` confident ones first.

        Args:
            actions: rows of the action table.
            cache: the past; not changed.
            num_steps: refinement steps; at most one a token is of use.
            temperature: 0 takes the likeliest code.
            generator: one for all or one a row; None takes the likeliest code.
            known: tokens that stand already; -1 where one is to be sampled.
        """
        batch_size, num_tokens = len(actions), self.num_tokens
        shape = (batch_size, num_tokens)
        tokens = torch.zeros(shape, dtype=torch.int64, device=actions.device)
        hidden = torch.ones(shape, dtype=torch.bool, device=actions.device)
        if known is not None:
            tokens, hidden = known.clamp(min=0), known < 0
        num_steps = min(num_steps, num_tokens)
        draws = None
        if generator is not None and temperature > 0:
            draws = uniform((num_steps, num_tokens), batch_size, generator, actions.device)
        table = self.code_embeddings()
        for step in range(num_steps):
            logits = self.step_logits(tokens, hidden, actions, cache, table)
            step_draws = None if draws is None else draws[:, step]
            codes, confidence = sample_codes(logits, step_draws, temperature)
            tokens = torch.where(hidden, codes, tokens)
            num_unsure = (hidden & (confidence < self.config.sure_prob)).sum(-1)
            limit = num_hidden(num_tokens, step, num_steps)
            num_left = torch.minimum(num_unsure, hidden.sum(-1) - 1).clamp(min=0, max=limit)
            doubt_order = confidence.masked_fill(~hidden, torch.inf).argsort(-1).argsort(-1)
            hidden = hidden & (doubt_order < num_left[:, None])
        return tokens

    def _draw_scored(
        self, hidden: Bool[Tensor, "B T S"], changed: Bool[Tensor, "B T S"]
    ) -> tuple[Bool[Tensor, "B T S"], Float[Tensor, " scored"]]:
        """Return which hidden tokens count, and their weights.

        Of tokens that stay as they were, most of a frame, a part is drawn to stand for all.
        """
        draws = torch.rand(hidden.shape, generator=self.generator).to(hidden.device)
        scored = hidden & (changed | (draws < STILL_SHARE))
        weights = torch.where(changed, 1 + self.config.change_weight, 1 / STILL_SHARE)
        return scored, weights[scored]

    def _draw_actions(self, batch: Batch) -> Int[Tensor, "B T"]:
        assert batch.actions is not None
        rows = self.real_action_rows(batch.actions)
        if batch.latent_actions is not None:
            draws = torch.rand(len(rows), 1, generator=self.generator).to(rows.device)
            latent = self.latent_action_rows(batch.latent_actions)
            rows = torch.where(draws < self.config.latent_prob, latent, rows)
        return F.pad(rows, (1, 0), value=0)

    def _corrupt(self, tokens: Int[Tensor, "B T S"]) -> Int[Tensor, "B T S"]:
        """Replace some tokens by a near code or by another clip's token at the same place."""
        if not self.training or self.config.max_corruption == 0:
            return tokens
        device = tokens.device
        rate = torch.rand(len(tokens), 1, 1, generator=self.generator) * self.config.max_corruption
        draws = torch.rand(tokens.shape, generator=self.generator)
        num_near = self.near_codes.shape[1]
        pick = torch.randint(num_near, tokens.shape, generator=self.generator).to(device)
        near = self.near_codes[tokens].gather(-1, pick[..., None])[..., 0]
        order = torch.randperm(len(tokens), generator=self.generator).to(device)
        wrong = torch.where((draws < rate / 2).to(device), near, tokens[order])
        return torch.where((draws < rate).to(device), wrong, tokens)

    def code_embeddings(self) -> Float[Tensor, "codes D"]:
        """Return the embedding of every code, in and out."""
        out: Tensor = self.embed_code(self.codebook) + self.code_offset
        return out

    def _embed_tokens(self, tokens: Int[Tensor, "*batch S"]) -> Float[Tensor, "*batch S D"]:
        return F.embedding(tokens, self.code_embeddings())

    def _embed(
        self, embedded: Float[Tensor, "B T S D"], actions: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T positions D"]:
        action = rearrange(self.embed_action(actions), "B T D -> B T 1 D")
        embedded = self.join_group(self.grid.join(embedded)) + self.positions()
        if self.config.action_injection == "prepend":
            return torch.cat([action, embedded], dim=2)
        out: Tensor = embedded + action
        return out

    def _split_groups(self, features: Float[Tensor, "B T positions D"]) -> Float[Tensor, "B T S D"]:
        return self.grid.split(self.to_embeddings(features[:, :, -self.grid.num_groups :]))

    def _to_logits(
        self, features: Float[Tensor, "*batch D"], table: Float[Tensor, "codes D"]
    ) -> Float[Tensor, "*batch codes"]:
        out: Tensor = features @ table.T / features.shape[-1] ** 0.5 + self.code_bias
        return out
