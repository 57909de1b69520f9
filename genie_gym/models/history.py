"""What the networks remember of frames that are known: recorded ones, and those of a live game."""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genie_gym.data.batch import to_float
from genie_gym.models.sampling import FrameSampler
from genie_gym.models.stack import GenieStack
from genie_gym.models.state import WorldState
from genie_gym.nn.attention import TemporalCache


class History:
    """Builds states frame by frame, so that a game that goes on needs its newest frame alone.

    Args:
        stack: trained networks.
        sampler: their dynamics.
        reward_table: `code_embeddings` of the reward model; None if it is not trained.
    """

    def __init__(
        self,
        stack: GenieStack,
        sampler: FrameSampler,
        reward_table: Float[Tensor, "codes D"] | None,
    ) -> None:
        self._stack = stack
        self._sampler = sampler
        self._reward_table = reward_table

    def encode(
        self,
        frames: UInt8[Tensor, "B T H W C"],
        rows: Int[Tensor, "B T-1"],
        played: Int[Tensor, "B T-1"],
    ) -> WorldState:
        """Return states after clips.

        Args:
            frames: the clips.
            rows: rows of the dynamics' action table between their frames.
            played: real actions between their frames; -1 where they are not known.
        """
        encoder = self._empty_encoder(len(frames))
        state = self._begin(*self._look(frames[:, 0], encoder))
        for t in range(rows.shape[1]):
            state = self.observe(state, rows[:, t], played[:, t], frames[:, t + 1])
        return state

    def observe(
        self,
        state: WorldState,
        rows: Int[Tensor, " B"],
        played: Int[Tensor, " B"],
        frames: UInt8[Tensor, "B H W C"],
    ) -> WorldState:
        """Return the states after one more frame; arguments as in `encode`."""
        return self._follow(state, rows, played, *self._look(frames, state.encoder))

    def replay(
        self,
        tokens: Int[Tensor, "B T S"],
        rows: Int[Tensor, "B T-1"],
        played: Int[Tensor, "B T-1"],
    ) -> WorldState:
        """Return states after clips of which the tokens alone are known."""
        state = self._begin(tokens[:, 0].clone(), self._empty_encoder(len(tokens)))
        for t in range(rows.shape[1]):
            newest = tokens[:, t + 1].clone()
            state = self._follow(state, rows[:, t], played[:, t], newest, state.encoder)
        return state

    def remember_decoded(self, state: WorldState) -> TemporalCache:
        """Return the decoder's past with the newest frames in it."""
        tokenizer = self._stack.tokenizer
        if tokenizer.config.decoder.temporal_window < 2:
            return state.decoder  # the decoder looks at no other frame
        return tokenizer.decode_step(state.tokens, state.decoder)[1]

    def _look(
        self, frames: UInt8[Tensor, "B H W C"], encoder: tuple[TemporalCache, ...]
    ) -> tuple[Int[Tensor, "B S"], tuple[TemporalCache, ...]]:
        """Return the tokens of new frames, and the encoder's past with them in it."""
        tokenizer = self._stack.tokenizer
        if not encoder:
            return tokenizer.encode(to_float(frames)[:, None])[:, 0], ()
        tokens, cache = tokenizer.encode_step(to_float(frames), encoder[0])
        return tokens, (cache,)

    def _begin(self, tokens: Int[Tensor, "B S"], encoder: tuple[TemporalCache, ...]) -> WorldState:
        """Return states in which one frame has been seen."""
        num_games, stack = len(tokens), self._stack
        unknown = torch.full_like(tokens[:, 0], -1)
        reward = stack.reward.empty_cache(num_games)
        return WorldState(
            tokens=tokens,
            led_by=stack.dynamics.real_action_rows(unknown),
            dynamics=stack.dynamics.empty_cache(num_games),
            # A first frame stands for the one before it.
            reward=self._remember_earned(tokens, tokens, unknown, reward),
            decoder=stack.tokenizer.decoder.empty_cache(num_games, stack.tokenizer.num_tokens),
            encoder=encoder,
        )

    def _follow(
        self,
        state: WorldState,
        rows: Int[Tensor, " B"],
        played: Int[Tensor, " B"],
        tokens: Int[Tensor, "B S"],
        encoder: tuple[TemporalCache, ...],
    ) -> WorldState:
        return WorldState(
            tokens=tokens,
            led_by=rows,
            dynamics=self._sampler.append(state.tokens, state.led_by, state.dynamics),
            reward=self._remember_earned(tokens, state.tokens, played, state.reward),
            decoder=self.remember_decoded(state),
            encoder=encoder,
        )

    def _remember_earned(
        self,
        tokens: Int[Tensor, "B S"],
        last: Int[Tensor, "B S"],
        played: Int[Tensor, " B"],
        cache: TemporalCache,
    ) -> TemporalCache:
        if self._reward_table is None:
            return cache
        return self._stack.reward.step(tokens, last, played, cache, self._reward_table)[1]

    def _empty_encoder(self, num_games: int) -> tuple[TemporalCache, ...]:
        tokenizer = self._stack.tokenizer
        if tokenizer.config.encoder.temporal_window < 2:
            return ()
        return (tokenizer.encoder.empty_cache(num_games, tokenizer.num_tokens),)
