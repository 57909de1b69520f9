"""Recording until there are enough rewards of each sign."""

from dataclasses import asdict, dataclass

from collectors.settings import RecordingSettings
from genie_gym.data.manifest import Manifest
from genie_gym.data.reward_classes import count_signs, is_enough, reward_classes
from genie_gym.data.shards import EpisodeRows


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What a recording holds so far, in whole episodes: all that its end depends on."""

    num_actions: int
    """Actions taken."""
    num_positive: int
    """Rewards above 0."""
    num_negative: int
    """Rewards below 0."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Tally":
        """Count the closed shards of a recording."""
        positive, negative = manifest.reward_signs
        return cls(num_actions=manifest.num_actions, num_positive=positive, num_negative=negative)

    def plus(self, episode: EpisodeRows) -> "Tally":
        """Return the tally with one more episode."""
        positive, negative = count_signs(reward_classes(episode.rewards))
        return Tally(
            num_actions=self.num_actions + episode.num_actions,
            num_positive=self.num_positive + positive,
            num_negative=self.num_negative + negative,
        )

    def is_enough(self, settings: RecordingSettings) -> bool:
        """Whether the recording ends here: its quota is met, or all its steps are taken."""
        return is_enough(self.num_actions, self.num_positive, self.num_negative, asdict(settings))

    def report(self, settings: RecordingSettings) -> str:
        """Say which part of the quota was met; nothing if none was set."""
        quota = settings.min_events
        if quota is None:
            return ""
        counts = {"positive": self.num_positive, "negative": self.num_negative}
        return "; ".join(
            f"quota of {quota} {sign} rewards {'met' if count >= quota else 'missed'}: {count}"
            for sign, count in counts.items()
        )
