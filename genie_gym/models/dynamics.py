"""MaskGIT dynamics: the tokens of the next frame from past tokens and an action.

- Two streams run through one set of weights. The whole stream holds past frames as they are and
  feeds the temporal keys and values; the masked stream holds the frames to predict, partly
  hidden, and reads them. All frames of a clip are targets at once, and since the past is whole in
  training as it is in use, the cache is exact.
- Token embeddings, in and out, start from the codebook, so that near codes have near embeddings
  and share probability.
- A hidden token is embedded as the last frame's token at its place, marked as hidden, and that
  token's logit gets a learned bonus: most of a frame is copied, so the network learns the change.
- Past tokens are sometimes wrong in training, so that a wrong one in a rollout does not spread.
"""

import math
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
from genie_gym.nn.masking import corrupt, draw_scored, random_mask
from genie_gym.nn.patches import TokenGrid
from genie_gym.nn.quantizer import whiten
from genie_gym.nn.transformer import (
    SpatialPositions,
    STTransformer,
    TransformerConfig,
    causal_window_mask,
)

COPY_ODDS = 20.0
"""Odds that a token stays as it was, before anything is learned."""


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
    """Share of training clips that are driven by latent actions instead of real ones; half of them
    from a random step on, as a game is whose context was recorded. 1 leaves real ones out."""
    event_share: float = 0.0
    """Share of training clips that are laid around a reward or an end: rare play, such as a ball
    that is missed, is else learned last."""
    max_corruption: float = 0.15
    """Highest share of past tokens replaced by wrong ones; drawn per clip from 0 to this."""
    rehearsal_share: float = 0.0
    """Share of training clips that are first run without gradient as they will be in use: some of
    their past frames become the network's own parallel guesses, and only tokens in doubt, those
    below `sure_prob`, are hidden."""
    change_weight: float = 5.0
    """Extra weight of tokens that differ from the last frame's."""
    num_near_codes: int = 8
    """Codes that share a target, by distance in the codebook; 1 is plain cross-entropy."""
    nearness: float = 0.1
    """Share of a target that goes to its near codes."""
    num_maskgit_steps: int = 8
    """Default number of refinement steps a frame (25 in the paper)."""
    sure_prob: float = 0.98
    """Sampled tokens with at least this probability are revealed at once, ahead of the schedule,
    and the surest of the others too; the steps are left for the rest. 1 keeps to the schedule."""
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
        shares = ("min_mask_rate", "latent_prob", "event_share", "max_corruption", "nearness")
        for name in (*shares, "rehearsal_share", "sure_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"dynamics.{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.transformer.temporal_window < 2:
            raise ConfigError(
                "dynamics.transformer.temporal_window must be at least 2 (the last frame and the "
                f"next), got {self.transformer.temporal_window}"
            )
        if self.num_maskgit_steps < 1 or self.num_near_codes < 1:
            raise ConfigError("dynamics.num_maskgit_steps and num_near_codes must be at least 1")

    @property
    def least_odds(self) -> float:
        """Odds against the likeliest code below which a code is never drawn, at most a half.

        Training lays `nearness` of each target on its near codes, and a network in no doubt says
        just that. Drawn as said, a tenth of all tokens would be wrong at temperature 1.
        """
        if self.num_near_codes == 1:
            return 0.0
        near_prob = self.nearness / self.num_near_codes
        # Twice what a near code gets, since the network learns it only roughly.
        return min(2 * near_prob / (1 - self.nearness + near_prob), 0.5)


class Dynamics(nn.Module):
    """Predicts tokens of frame t + 1 from tokens up to t and the action taken at t.

    Source:
        Bruce et al. 2024, "Genie", section 2.1 and Chang et al. 2022, "MaskGIT". Ours: the two
        streams (the paper masks every frame of the input), embeddings from the codebook, copying,
        clips trained on as they are in use, and real actions beside latent ones.
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
        self.grid = TokenGrid(rows, columns, config.group_size)
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
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.5)
        # One table: no action known, then the real actions, then the latent ones.
        self.embed_action = nn.Embedding(1 + num_actions + num_latent_actions, dim)
        self.join_group = nn.Linear(config.group_size**2 * dim, dim)
        self.positions = SpatialPositions(self.grid.group_rows, self.grid.group_columns, dim)
        self.transformer = STTransformer(config.transformer)
        self.to_embeddings = nn.Linear(dim, config.group_size**2 * dim)
        self.to_copy = nn.Linear(dim, 1)
        nn.init.constant_(self.to_copy.bias, math.log(COPY_ODDS * len(codebook)))

    @torch.no_grad()
    def set_codebook(self, codebook: Float[Tensor, "codes code_dim"]) -> None:
        """Take over a trained codebook, whitened."""
        self.codebook.copy_(whiten(codebook))
        distances = torch.cdist(codebook, codebook)
        self.near_codes.copy_(distances.topk(self.near_codes.shape[1], largest=False).indices)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the loss on clips of tokens, and weighted accuracies on the scored hidden ones."""
        assert batch.tokens is not None and batch.actions is not None
        targets, before = batch.tokens[:, 1:], batch.tokens[:, :-1]
        hidden = random_mask(tuple(targets.shape), self.config.min_mask_rate, self.generator)
        hidden, past, actions = hidden.to(targets.device), before, self._draw_actions(batch)
        if self.training:
            past = corrupt(before, self.near_codes, self.config.max_corruption, self.generator)
            past, hidden = self._rehearse(past, targets, hidden, actions)
        features = self._two_stream_features(past, targets, hidden, actions)
        changed = targets != before
        scored, weights = draw_scored(hidden, changed, self.config.change_weight, self.generator)
        targets, changed = targets[scored], changed[scored]
        logits = self.to_logits(features[scored], past[scored], self.code_embeddings())

        log_probs = logits.float().log_softmax(-1)
        # One gather, since its gradient is as large as the logits.
        shared = torch.cat([targets[:, None], self.near_codes[targets]], dim=1)
        target_log_probs, near_log_probs = log_probs.gather(-1, shared).tensor_split([1], dim=1)
        target_log_probs, share = target_log_probs[:, 0], self.config.nearness
        cross_entropy = -(1 - share) * target_log_probs - share * near_log_probs.mean(-1)
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
        return self.to_logits(features, past, self.code_embeddings())

    def _two_stream_features(
        self,
        past: Int[Tensor, "B T S"],
        targets: Int[Tensor, "B T S"],
        hidden: Bool[Tensor, "B T S"],
        actions: Int[Tensor, "B T+1"],
    ) -> Float[Tensor, "B T S D"]:
        num_frames = past.shape[1]
        table = self.code_embeddings()
        whole = self._embed(F.embedding(past, table), actions[:, :-1])
        masked = self._embed(self._embed_partly(targets, hidden, past, table), actions[:, 1:])

        times = torch.arange(num_frames, device=past.device)
        positions = torch.cat([times, times + 1])
        window = causal_window_mask(positions, self.config.transformer.temporal_window)
        is_whole = torch.arange(2 * num_frames, device=past.device) < num_frames
        is_self = torch.eye(2 * num_frames, dtype=torch.bool, device=past.device)
        # A masked frame reads whole frames before it and itself, never the whole copy of itself.
        is_earlier = positions[None, :] < positions[:, None]
        mask = window & is_whole[None, :] & (is_whole[:, None] | is_earlier) | is_self
        features = self.transformer(torch.cat([whole, masked], dim=1), positions, mask)
        return self.split_groups(features[:, num_frames:])

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

    def _draw_actions(self, batch: Batch) -> Int[Tensor, "B T"]:
        assert batch.actions is not None
        rows = self.real_action_rows(batch.actions)
        if batch.latent_actions is not None:
            latent = self.latent_action_rows(batch.latent_actions)
            num_clips, num_steps = rows.shape
            is_latent, begins = torch.rand(2, num_clips, 1, generator=self.generator)
            first = num_steps * (2 * begins - 1) * (self.config.latent_prob < 1)
            is_driven = (is_latent < self.config.latent_prob) & (torch.arange(num_steps) >= first)
            rows = torch.where(is_driven.to(rows.device), latent, rows)
        return F.pad(rows, (1, 0), value=0)

    @torch.no_grad()
    def _rehearse(
        self,
        past: Int[Tensor, "B T S"],
        targets: Int[Tensor, "B T S"],
        hidden: Bool[Tensor, "B T S"],
        actions: Int[Tensor, "B T+1"],
    ) -> tuple[Int[Tensor, "B T S"], Bool[Tensor, "B T S"]]:
        """Bring a share of the clips into the state they will have in use.

        There the past is the network's own work, a lost ball included, and after the first
        refinement step only tokens in doubt are hidden.
        """
        num_clips = round(self.config.rehearsal_share * len(past))
        if num_clips == 0:
            return past, hidden
        arguments = (x[:num_clips] for x in (past, targets, torch.ones_like(hidden), actions))
        logits = self.two_stream_logits(*arguments)
        largest, guesses = logits.max(-1)
        probs = (largest.float() - logits.logsumexp(-1).float()).exp()
        # Autocast may keep the weights it cast here, which have no gradient.
        torch.clear_autocast_cache()

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=self.generator).to(past.device)

        num_frames = past.shape[1]
        is_own = draw(num_clips, num_frames - 1, 1) < draw(num_clips, 1, 1)
        own = torch.where(is_own, guesses[:, :-1], past[:num_clips, 1:])
        is_hidden = (probs < self.config.sure_prob) & (
            draw(*probs.shape) < draw(num_clips, num_frames, 1)
        )
        is_least_sure = probs == probs.amin(-1, keepdim=True)
        past, hidden = past.clone(), hidden.clone()
        past[:num_clips, 1:], hidden[:num_clips] = own, is_hidden | is_least_sure
        return past, hidden

    def code_embeddings(self) -> Float[Tensor, "codes D"]:
        """Return the embedding of every code, in and out."""
        out: Tensor = self.embed_code(self.codebook) + self.code_offset
        return out

    def _embed_partly(
        self,
        tokens: Int[Tensor, "*batch S"],
        hidden: Bool[Tensor, "*batch S"],
        last: Int[Tensor, "*batch S"],
        table: Float[Tensor, "codes D"],
    ) -> Float[Tensor, "*batch S D"]:
        """Embed a partly hidden frame: what is hidden as it was in the last frame, and marked."""
        embedded = F.embedding(torch.where(hidden, last, tokens), table)
        return embedded + hidden[..., None] * self.mask_token

    def _embed(
        self, embedded: Float[Tensor, "B T S D"], actions: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T positions D"]:
        return self.add_action(
            self.join_group(self.grid.join(embedded)) + self.positions(), actions
        )

    def add_action(
        self, embedded: Float[Tensor, "B T groups D"], actions: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T positions D"]:
        """Tell embedded frames the action (table row) that led to each."""
        action = rearrange(self.embed_action(actions), "B T D -> B T 1 D")
        if self.config.action_injection == "prepend":
            return torch.cat([action, embedded], dim=2)
        out: Tensor = embedded + action
        return out

    def split_groups(self, features: Float[Tensor, "B T positions D"]) -> Float[Tensor, "B T S D"]:
        """Return features of every token, ready for `to_logits`."""
        return self.grid.split(self.to_embeddings(features[:, :, -self.grid.num_groups :]))

    def to_logits(
        self,
        features: Float[Tensor, "*batch D"],
        last: Int[Tensor, "*batch"],
        table: Float[Tensor, "codes D"],
    ) -> Float[Tensor, "*batch codes"]:
        """Return logits of tokens; `last` stood at their places in the frame before."""
        logits = F.linear(features / features.shape[-1] ** 0.5, table, self.code_bias)
        # Not scatter_add_: in bfloat16 that copies all logits on a CPU, twice.
        first = torch.arange(0, logits.numel(), logits.shape[-1], device=logits.device)
        copy = self.to_copy(features).flatten().to(logits)
        logits.view(-1).index_add_(0, first + last.flatten(), copy)
        return logits
