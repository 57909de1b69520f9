"""Action map: which latent code stands for each real action."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError
from genie_gym.models.tokenizer import Metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionMapConfig:
    """What the action map learns from."""

    num_labels: int = 200
    """Transitions whose real action is told; at most the training episodes' own."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_labels < 1:
            raise ConfigError(f"action_map.num_labels must be at least 1, got {self.num_labels}")


class ActionMap(nn.Module):
    """A table of p(code | real action), learned from few labelled transitions.

    It lets a world whose dynamics knows latent actions alone be played by the game's own. An action
    stands for the code whose odds it raises most, not for its likeliest one: where a game often
    lags behind, or an end of the field stops it, every action's likeliest code is "nothing moves".
    Its effects on the odds have a normal prior of width 1, so that a code seen once or twice does
    not win, and an action that no label shows has no effect and gets the first code.

    Source:
        Bruce et al. 2024, "Genie", section 3.3 and Gao et al. 2025, "AdaWorld" map actions to
        latent ones through few labelled transitions. Odds instead of chances are ours.
    """

    def __init__(self, config: ActionMapConfig, *, num_actions: int, num_codes: int) -> None:
        """Make a map that knows nothing yet."""
        super().__init__()
        self.config = config
        self.code_bias = nn.Parameter(torch.zeros(num_codes))
        self.effects = nn.Parameter(torch.zeros(num_actions, num_codes))

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the loss: cross-entropy of the codes, and the prior's share of it.

        The metrics are `accuracy`, the share of codes that are the likeliest of their action, and
        `commonest`, the share of the commonest code, which needs no look at the action.
        """
        assert batch.actions is not None and batch.latent_actions is not None
        actions, codes = batch.actions.flatten(), batch.latent_actions.flatten()
        logits = self.code_bias + self.effects[actions]
        prior = 0.5 * self.effects.square().sum() / self.config.num_labels
        metrics = {
            "accuracy": (logits.argmax(-1) == codes).float().mean().item(),
            "commonest": (torch.bincount(codes).max() / len(codes)).item(),
        }
        return F.cross_entropy(logits, codes) + prior, metrics

    def codes(self, actions: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """Return the code that each real action stands for; -1, not known, stays -1."""
        return torch.where(actions < 0, -1, self.effects.argmax(-1)[actions.clamp(min=0)])
