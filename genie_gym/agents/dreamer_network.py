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


class TokenNetwork(nn.Module):
    """From the tokens of the last frames to a few numbers: an actor's logits, a critic's value.

    A token is seen as the difference of its code to what is usual at its place (`measure`).

    Args:
        config: shape of the network.
        tokenizer: what makes the tokens.
        num_outputs: numbers that come out.

    Source:
        Hafner et al. 2023, "DreamerV3": layers with normalisation and SiLU, an output that begins
        at zero. Theirs reads the state of a recurrent model, ours reads codes.
    """

    codebook: Float[Tensor, "codes code_dim"]
    background: Float[Tensor, "S code_dim"]
    contrast: Float[Tensor, ""]

    def __init__(self, config: NetworkConfig, tokenizer: Tokenizer, num_outputs: int) -> None:
        super().__init__()
        codebook, num_tokens = tokenizer.quantizer.codebook, tokenizer.num_tokens
        code_dim, dim = codebook.shape[1], config.feature_dim
        self.register_buffer("codebook", torch.zeros_like(codebook))
        self.register_buffer("background", torch.zeros(num_tokens, code_dim))
        self.register_buffer("contrast", torch.ones(()))
        self.embed = nn.Linear(code_dim, config.token_dim, bias=False)
        self.layers = nn.Sequential(
            nn.Linear(config.num_frames * num_tokens * config.token_dim, dim),
            nn.LayerNorm(dim),
            nn.SiLU(),
            nn.Linear(dim, dim),
            nn.LayerNorm(dim),
            nn.SiLU(),
            nn.Linear(dim, num_outputs),
        )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

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

    def forward(self, tokens: Int[Tensor, "B K S"]) -> Float[Tensor, "B outputs"]:
        """Return the numbers of each game."""
        seen = F.embedding(tokens, self.embed(self.codebook)) - self.embed(self.background)
        out: Tensor = self.layers(rearrange(seen / self.contrast, "B K S D -> B (K S D)"))
        return out


class TokenPolicy(nn.Module):
    """An actor with the tokenizer of its world, so that it can be shown frames."""

    def __init__(self, tokenizer: Tokenizer, actor: TokenNetwork) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.actor = actor

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
        device = self.actor.codebook.device
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
        device = self.actor.codebook.device
        log_probs = action_log_probs(self.actor, torch.from_numpy(tokens).to(device))
        actions = log_probs.argmax(-1).cpu() if deterministic else draw_actions(log_probs)
        return actions.numpy(), cache


def action_log_probs(
    actor: TokenNetwork, tokens: Int[Tensor, "B K S"]
) -> Float[Tensor, "B actions"]:
    """Return the log-probabilities of the actions, a small share of them uniform.

    Source:
        Hafner et al. 2023, "DreamerV3", section "Robust prediction": categoricals are 1 % uniform.
    """
    probs: Tensor = actor(tokens).softmax(-1)
    return ((1 - UNIFORM_SHARE) * probs + UNIFORM_SHARE / probs.shape[-1]).log()


def draw_actions(
    log_probs: Float[Tensor, "B actions"], generator: torch.Generator | None = None
) -> Int[Tensor, " B"]:
    """Return drawn actions, on the CPU."""
    return torch.multinomial(log_probs.exp().cpu(), 1, generator=generator)[:, 0]
