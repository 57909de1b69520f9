"""Playing a trained dynamics: the next frame's tokens, drawn and refined as MaskGIT does.

The newest frame enters the cache in the same pass that first looks at the next one, as whole and
masked frames share a pass in training. So a frame that is drawn in one step costs one pass.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genie_gym.models.dynamics import Dynamics
from genie_gym.nn.attention import TemporalCache
from genie_gym.nn.draws import Draws, uniform
from genie_gym.nn.masking import confidence, draw_codes, num_hidden

TOKENS_AT_ONCE = 1024
"""Tokens whose logits a CPU holds at once: larger arrays get new pages at every step, which takes
longer than to compute them."""


class FrameSampler:
    """A dynamics whose weights stand still; what follows from them alone is computed once.

    Source:
        Chang et al. 2022, "MaskGIT", section 3.2. Ours: the shared pass, and that tokens in
        no doubt are revealed ahead of the schedule, one in doubt with them.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        """Compute the tables of a dynamics; a later change of its weights needs a new sampler."""
        self.dynamics = dynamics
        with torch.no_grad():
            self.table = dynamics.code_embeddings()
            # What a token gives to its group: by place in the group, hidden or not, and code.
            kinds = torch.stack([self.table, self.table + dynamics.mask_token])
            weight = rearrange(
                dynamics.join_group.weight, "out (place D) -> place D out", D=kinds.shape[-1]
            )
            joined = torch.einsum("k c d, p d o -> p k c o", kinds, weight)
            self.joined_table = rearrange(joined, "place kind code D -> (place kind code) D")
            self.position_bias = dynamics.join_group.bias + dynamics.positions()

    def append(
        self, tokens: Int[Tensor, "B S"], actions: Int[Tensor, " B"], cache: TemporalCache
    ) -> TemporalCache:
        """Return the cache with one more whole frame; `actions` (table rows) led to it."""
        nothing = torch.zeros_like(tokens[:, None], dtype=torch.bool)
        embedded = self._embed(tokens[:, None], nothing, actions[:, None])
        return self.dynamics.transformer.step(embedded, cache)[1]

    def logits(
        self,
        tokens: Int[Tensor, "B S"],
        hidden: Bool[Tensor, "B S"],
        last: Int[Tensor, "B S"],
        actions: Int[Tensor, " B"],
        cache: TemporalCache,
    ) -> Float[Tensor, "B S codes"]:
        """Return logits of a partly hidden next frame, reached by `actions` (table rows).

        `last` is the newest frame of the cache.
        """
        features = self._look(tokens, hidden, last, actions, cache)
        return self.dynamics.to_logits(features, last, self.table)

    def first_logits(
        self,
        last: Int[Tensor, "B S"],
        led_by: Int[Tensor, " B"],
        actions: Int[Tensor, " B"],
        cache: TemporalCache,
    ) -> Float[Tensor, "B S codes"]:
        """Return logits of the next frame before anything of it is drawn.

        Takes the arguments of `sample`.
        """
        features, _ = self._look_first(last, led_by, actions, cache)
        return self.dynamics.to_logits(features, last, self.table)

    def sample(
        self,
        last: Int[Tensor, "B S"],
        led_by: Int[Tensor, " B"],
        actions: Int[Tensor, " B"],
        cache: TemporalCache,
        *,
        num_steps: int,
        temperature: float,
        generator: Draws | None,
    ) -> tuple[Int[Tensor, "B S"], TemporalCache]:
        """Return the tokens of the next frame, and the cache that remembers the last one.

        Tokens are revealed over `num_steps`, confident ones first.

        Args:
            last: tokens of the newest frame.
            led_by: row of the action table that led to it.
            actions: rows of the action table that lead on.
            cache: the frames before the newest one; not changed.
            num_steps: refinement steps; at most one a token is of use.
            temperature: 0 takes the likeliest code.
            generator: one for all or a stream a row; None takes the likeliest code.
        """
        batch_size, num_tokens = last.shape
        num_steps = min(num_steps, num_tokens)
        draws = None
        if generator is not None and temperature > 0:
            draws = uniform((num_steps, num_tokens), batch_size, generator, last.device)
        tokens, hidden = last, torch.ones_like(last, dtype=torch.bool)
        features, cache = self._look_first(last, led_by, actions, cache)
        places = repeat(torch.arange(num_tokens, device=last.device), "S -> B S", B=batch_size)
        for step in range(num_steps):
            if step > 0:
                features = self._look(tokens, hidden, last, actions, cache)
                features = features.take_along_dim(places[..., None], dim=1)
            step_draws = None if draws is None else draws[:, step, : places.shape[1]]
            codes, probs = self._draw(
                features,
                last.gather(1, places),
                step_draws,
                temperature,
                is_last=step == num_steps - 1,
            )
            is_open = hidden.gather(1, places)
            codes = torch.where(is_open, codes, tokens.gather(1, places))
            tokens = tokens.scatter(1, places, codes)
            if probs is not None:
                doubt = probs.masked_fill(~is_open, torch.inf)
                limit = num_hidden(num_tokens, step, num_steps)
                places, is_open = self._least_sure(places, doubt, limit)
                hidden = torch.zeros_like(hidden).scatter(1, places, is_open)
        return tokens, cache

    def _draw(
        self,
        features: Float[Tensor, "B asked D"],
        last: Int[Tensor, "B asked"],
        draws: Float[Tensor, "B asked"] | None,
        temperature: float,
        *,
        is_last: bool,
    ) -> tuple[Int[Tensor, "B asked"], Float[Tensor, "B asked"] | None]:
        """Return a code for every token and, but for the last step, how probable it was."""
        on_cpu = features.device.type == "cpu"
        at_once = max(TOKENS_AT_ONCE // last.shape[1], 1) if on_cpu else len(last)
        codes, probs = [], []
        for first in range(0, len(last), at_once):
            part = slice(first, first + at_once)
            logits = self.dynamics.to_logits(features[part], last[part], self.table)
            part_draws = None if draws is None else draws[part]
            codes.append(self._draw_codes(logits, last[part], part_draws, temperature))
            if not is_last:
                probs.append(confidence(logits, codes[-1]))
        return torch.cat(codes), None if is_last else torch.cat(probs)

    def _draw_codes(
        self,
        logits: Float[Tensor, "B asked codes"],
        last: Int[Tensor, "B asked"],
        draws: Float[Tensor, "B asked"] | None,
        temperature: float,
    ) -> Int[Tensor, "B asked"]:
        """Return what `draw_codes` does; tokens that can only stay as they were cost no exponent.

        They are nine in ten. A GPU would have to wait to know which.
        """
        least_odds = self.dynamics.config.least_odds
        if logits.device.type != "cpu" or not least_odds:
            return draw_codes(logits, draws, temperature, least_odds)
        place = last[..., None]
        stays = logits.gather(-1, place)
        others = logits.scatter_(-1, place, -torch.inf).amax(-1)
        logits.scatter_(-1, place, stays)
        is_open = others >= stays[..., 0] + math.log(least_odds)
        open_draws = None if draws is None else draws[is_open]
        codes = last.clone()
        codes[is_open] = draw_codes(logits[is_open], open_draws, temperature, least_odds)
        return codes

    def _least_sure(
        self, places: Int[Tensor, "B asked"], doubt: Float[Tensor, "B asked"], limit: int
    ) -> tuple[Int[Tensor, "B limit"], Bool[Tensor, "B limit"]]:
        """Return as many places as the schedule leaves, least sure first, and which are in doubt.

        Their number is the same for every frame, so that a GPU is never waited for.
        """
        sure_prob = self.dynamics.config.sure_prob
        # Rounding makes probabilities of exactly 1, which no more than others may jump a schedule.
        sure_prob = sure_prob if sure_prob < 1 else torch.inf
        num_unsure = (doubt < sure_prob).sum(-1, keepdim=True)
        # The surest of these is revealed too, and the others see it: a ball that may be in one of
        # two patches is then in one of them, not in both or in none.
        num_left = (num_unsure - 1).clamp(min=0)
        order = doubt.argsort(-1)[:, :limit]
        return places.gather(1, order), torch.arange(limit, device=doubt.device) < num_left

    def _look_first(
        self,
        last: Int[Tensor, "B S"],
        led_by: Int[Tensor, " B"],
        actions: Int[Tensor, " B"],
        cache: TemporalCache,
    ) -> tuple[Float[Tensor, "B S D"], TemporalCache]:
        """Return features of the next frame, all of it hidden, and the cache with the last one."""
        both = repeat(last, "B S -> B T S", T=2)
        is_hidden = torch.zeros_like(both, dtype=torch.bool)
        is_hidden[:, 1] = True
        embedded = self._embed(both, is_hidden, torch.stack([led_by, actions], dim=1))
        features, cache = self.dynamics.transformer.step(embedded, cache)
        # Contiguous: a product with every other frame would copy the weights for each row.
        return self.dynamics.split_groups(features[:, 1:].contiguous())[:, 0], cache

    def _look(
        self,
        tokens: Int[Tensor, "B S"],
        hidden: Bool[Tensor, "B S"],
        last: Int[Tensor, "B S"],
        actions: Int[Tensor, " B"],
        cache: TemporalCache,
    ) -> Float[Tensor, "B S D"]:
        shown = torch.where(hidden, last, tokens)[:, None]
        embedded = self._embed(shown, hidden[:, None], actions[:, None])
        features, _ = self.dynamics.transformer.step(embedded, cache, num_kept=0)
        return self.dynamics.split_groups(features)[:, 0]

    def _embed(
        self,
        tokens: Int[Tensor, "B T S"],
        hidden: Bool[Tensor, "B T S"],
        actions: Int[Tensor, "B T"],
    ) -> Float[Tensor, "B T positions D"]:
        """Embed frames whose hidden tokens are given as they were in the frame before."""
        num_codes, batch_size = len(self.table), len(tokens)
        entries = self.dynamics.grid.join((tokens + num_codes * hidden)[..., None])
        entries = entries + 2 * num_codes * torch.arange(entries.shape[-1], device=tokens.device)
        joined = F.embedding_bag(entries.flatten(0, 2), self.joined_table, mode="sum")
        joined = rearrange(joined, "(B T p) D -> B T p D", B=batch_size, T=tokens.shape[1])
        return self.dynamics.add_action(joined + self.position_bias, actions)
