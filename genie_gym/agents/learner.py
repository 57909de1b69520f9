"""What a run asks of the thing that learns in it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from genie_gym.envs.slots import WorldEnvConfig, shared_world
from genie_gym.errors import WorldError
from genie_gym.models.world import World


@runtime_checkable
class Learner(Protocol):
    """Something that learns inside a world; one kind of run folder, check and save serves all."""

    @property
    def world(self) -> World:
        """The world it learns in."""

    @property
    def num_steps(self) -> int:
        """Imagined steps so far."""

    def learn(
        self,
        num_steps: int,
        logger: Logger,
        *,
        on_rollout: Callable[[], None],
        on_steps: Callable[[int], object],
    ) -> None:
        """Learn until `num_steps` imagined steps are done, or a rollout's rest more.

        Args:
            num_steps: steps in total, those of an earlier process included.
            logger: takes the figures of an update.
            on_rollout: called before every rollout, when the update before it is whole.
            on_steps: called with the number of steps that were just imagined.
        """

    def begin_with(self, network: nn.Module) -> None:
        """Take the weights of a loaded policy's network, one of the same algorithm and shape."""

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights that a policy is saved with."""

    def get_state(self) -> dict[str, Any]:
        """Return all that decides how learning goes on: tensors and plain values, by name."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave."""


def world_with_rewards(config: WorldEnvConfig) -> World:
    """Return the config's world.

    Raises:
        WorldError: there is no such world, or it is another game's, or lacks a reward model.
        DeviceError: the device is not there.
    """
    world = shared_world(config)
    if "reward" not in world.parts:
        raise WorldError(
            "an agent learns from rewards, and this world has no trained 'reward' part; it has "
            f"{sorted(world.parts)}. Train it: genie-gym train --stage reward, then export"
        )
    return world
