"""What a run of rounds is made of: real play, a world trained on it, an agent trained in that."""

import math
from dataclasses import dataclass, field, replace

from genie_gym.agents.config import AgentConfig
from genie_gym.errors import ConfigError
from genie_gym.games import MAX_STEPS, game_of
from genie_gym.training.config import RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DynaConfig:
    """Everything a run of rounds needs to know."""

    agent: AgentConfig
    """How the agent is trained in every round; `agent.steps` are the imagined steps of a round.
    `agent.env.device` is where the worlds are trained, too."""
    world: RunConfig = field(default_factory=RunConfig)
    """The stack, and how all its parts are trained in the first round."""
    real_steps: int = 100_000
    """Real steps that all rounds collect together; 100,000, or 400,000 raw frames, are Atari 100k.
    Games of `agent.real_check` are not among them: a policy's card counts those apart."""
    rounds: int = 5
    """How often is collected, the world trained, and the agent trained."""
    first_share: float = 0.3
    """Share of the real steps that the first round collects; the others share the rest evenly."""
    repeat_prob: float = 0.9
    """How likely blind play keeps its last action; 0 draws every action uniformly. The first round
    is played blindly."""
    explore_share: float = 0.1
    """Share of the later rounds' games that are played blindly; the newest policy plays the
    rest."""
    max_episode_steps: int = MAX_STEPS
    """Real steps after which a game is cut."""
    dynamics_steps: int = 500
    """Optimizer steps of the dynamics in each later round, from the former round's weights."""
    reward_steps: int = 200
    """The same of the reward model."""
    later_rate: float = 0.5
    """Factor on both learning rates in later rounds."""
    seed: int = 0
    """Owns the real games; `world.seed` and `agent.seed` own the rest."""

    def __post_init__(self) -> None:
        """Check the ranges, and that both halves are of one game."""
        for name in (
            "real_steps",
            "rounds",
            "max_episode_steps",
            "dynamics_steps",
            "reward_steps",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("repeat_prob", "explore_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 < self.first_share <= 1:
            raise ConfigError(f"first_share must lie in (0, 1], got {self.first_share}")
        if not 0 < self.later_rate < math.inf:
            raise ConfigError(f"later_rate must be above 0, got {self.later_rate}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.rounds > self.real_steps or min(self.steps_by_round) < 1:
            raise ConfigError(
                f"every round must have a real step, but rounds={self.rounds} and "
                f"first_share={self.first_share} divide real_steps={self.real_steps} so that one "
                "has none. Lower rounds, or raise real_steps"
            )
        self._check_agent()

    @property
    def game(self) -> str:
        """Name of the ALE game."""
        return game_of(self.world.stack.game)

    @property
    def steps_by_round(self) -> tuple[int, ...]:
        """Real steps of every round; their sum is `real_steps`."""
        if self.rounds == 1:
            return (self.real_steps,)
        first = round(self.first_share * self.real_steps)
        steps, left_over = divmod(self.real_steps - first, self.rounds - 1)
        return (first, *(steps + (index < left_over) for index in range(self.rounds - 1)))

    @property
    def later_world(self) -> RunConfig:
        """How the world is trained on in later rounds."""
        training = self.world.training
        dynamics, reward = (
            replace(
                stage,
                max_steps=num_steps,
                learning_rate=self.later_rate * stage.learning_rate,
                min_learning_rate=self.later_rate * stage.min_learning_rate,
            )
            for stage, num_steps in (
                (training.dynamics, self.dynamics_steps),
                (training.reward, self.reward_steps),
            )
        )
        return replace(self.world, training=replace(training, dynamics=dynamics, reward=reward))

    def _check_agent(self) -> None:
        env = self.agent.env
        if game_of(env.game) != self.game:
            raise ConfigError(
                f"world.stack.game and agent.env.game must be the same, got {self.game!r} and "
                f"{env.game!r}"
            )
        for name, value in (("env.world", env.world), ("init_from", self.agent.init_from)):
            if value is not None:
                raise ConfigError(
                    f"agent.{name} must be left out, got {value!r}: each round takes its own world "
                    "and goes on from the policy of the round before"
                )
