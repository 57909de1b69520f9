"""An actor and a critic that read tokens, and the policy that reads them from real frames."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor, nn

from genie_gym.agents.config import NetworkConfig
from genie_gym.data.batch import to_float
from genie_gym.models.tokenizer import Tokenizer
from genie_gym.nn.attention import TemporalCache
from genie_gym.nn.quantizer import whiten

UNIFORM_SHARE = 0.01
"""Share of a uniform choice in every policy: no action becomes impossible."""


class ActorCritic(nn.Module):
    """From the tokens of the last frames to the chances of the actions, and a value.

    A token is seen as the difference of its code to what is usual at its place (`measure`).

    Args:
        config: shape of the network.
        tokenizer: what makes the tokens.
        num_actions: size of the action set.

    Source:
        Hafner et al. 2023, "DreamerV3": layers with normalisation and SiLU, outputs that begin at
        zero, 1 % of a uniform choice. Theirs reads the state of a recurrent model, and actor and
        critic share nothing; ours reads codes, and they share all but their last layers.
    """

    codebook: Float[Tensor, "codes code_dim"]
    background: Float[Tensor, "S code_dim"]
    contrast: Float[Tensor, ""]

    def __init__(self, config: NetworkConfig, tokenizer: Tokenizer, num_actions: int) -> None:
        super().__init__()
        codebook, num_tokens = tokenizer.quantizer.codebook, tokenizer.num_tokens
        code_dim = codebook.shape[1]
        self.register_buffer("codebook", torch.zeros_like(codebook))
        self.register_buffer("background", torch.zeros(num_tokens, code_dim))
        self.register_buffer("contrast", torch.ones(()))
        self.embed = nn.Linear(code_dim, config.token_dim, bias=False)
        dim = config.feature_dim
        self.to_features = nn.Sequential(
            nn.Linear(config.num_frames * num_tokens * config.token_dim, dim),
            nn.LayerNorm(dim),
            nn.SiLU(),
            nn.Linear(dim, dim),
            nn.LayerNorm(dim),
            nn.SiLU(),
        )
        self.to_logits = nn.Linear(dim, num_actions)
        self.to_value = nn.Linear(dim, 1)
        for layer in (self.to_logits, self.to_value):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def measure(
        self, codebook: Float[Tensor, "codes code_dim"], tokens: Int[Tensor, "N S"]
    ) -> None:
        """Take the codes, and from tokens of play what is usual at each place."""
        self.codebook.copy_(whiten(codebook))
        codes = F.embedding(tokens, self.codebook)
        self.background.copy_(codes.mean(0))
        spread = (codes - self.background).square().mean().sqrt()
        self.contrast.copy_(spread.clamp(min=1e-3))  # all frames may be the same

    def forward(
        self, tokens: Int[Tensor, "B K S"]
    ) -> tuple[Float[Tensor, "B actions"], Float[Tensor, " B"]]:
        """Return the log-probabilities of the actions, and the values."""
        seen = F.embedding(tokens, self.embed(self.codebook)) - self.embed(self.background)
        features = self.to_features(rearrange(seen / self.contrast, "B K S D -> B (K S D)"))
        probs = self.to_logits(features).softmax(-1)
        probs = (1 - UNIFORM_SHARE) * probs + UNIFORM_SHARE / probs.shape[-1]
        return probs.log(), self.to_value(features)[:, 0]


class TokenPolicy(nn.Module):
    """An actor with the tokenizer of its world, so that it can be shown frames."""

    def __init__(self, tokenizer: Tokenizer, actor_critic: ActorCritic) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.actor_critic = actor_critic

    @torch.no_grad()
    def look(
        self,
        frames: UInt8[np.ndarray, "B H W C"],
        cache: TemporalCache | None,
        is_first: Bool[np.ndarray, " B"],
    ) -> tuple[Int64[np.ndarray, "B S"], TemporalCache]:
        """Return the tokens of new frames, and what the tokenizer remembers of them.

        Args:
            frames: newest frame of every game.
            cache: what the call before returned.
            is_first: which games have just begun.
        """
        device = self.actor_critic.codebook.device
        if cache is None:
            cache = self.tokenizer.encoder.empty_cache(len(frames), self.tokenizer.num_tokens)
        is_new = torch.from_numpy(is_first).to(device)
        cache = replace(cache, num_frames=torch.where(is_new, 0, cache.num_frames))
        newest = to_float(torch.from_numpy(frames).to(device))
        tokens, cache = self.tokenizer.encode_step(newest, cache)
        return tokens.cpu().numpy(), cache

    @torch.no_grad()
    def predict(
        self,
        tokens: Int64[np.ndarray, "B K S"],
        cache: TemporalCache,
        is_first: Bool[np.ndarray, " B"],
        deterministic: bool,
    ) -> tuple[Int64[np.ndarray, " B"], TemporalCache]:
        """Return actions, with the signature of SB3's policies; draws from torch's own numbers."""
        device = self.actor_critic.codebook.device
        log_probs, _ = self.actor_critic(torch.from_numpy(tokens).to(device))
        actions = log_probs.argmax(-1).cpu() if deterministic else draw_actions(log_probs)
        return actions.numpy(), cache


def draw_actions(
    log_probs: Float[Tensor, "B actions"], generator: torch.Generator | None = None
) -> Int[Tensor, " B"]:
    """Return drawn actions, on the CPU."""
    return torch.multinomial(log_probs.exp().cpu(), 1, generator=generator)[:, 0]
