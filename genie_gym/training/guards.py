"""Signs of a part that trains into a known trap, read from its validation figures.

A guard looks at figures that a stage reports anyway and says, in one line, what is likely wrong
and which setting to change. It only warns: a run goes on, and figures of the first few hundred
steps may still mend themselves.
"""

from collections.abc import Callable, Iterator

from genie_gym.models.tokenizer import Metrics

MAX_DRIFT = 2.0
"""Wrong tokens after a rollout over what its length explains; 1 is errors that merely add up. The
bundled world has 0.7: 1.2 % after 4 steps, 0.4 % after one."""
MIN_DRIFT_ERROR = 0.01
"""Share of wrong tokens below which nothing has drifted: less than one of 64."""
MIN_CODE_GAIN = 1.01
"""Codes that are ignored give 1.00; the bundled world's had 1.016 at its first evaluation, at step
200 of 1,200, and 1.30 at the end."""
MIN_LAM_PERPLEXITY = 1.5
"""One code gives 1, two used alike give 2; the bundled world's had 3.8 to 4.4 of 8."""
MIN_TOKENIZER_PERPLEXITY = 2.0
"""One code for everything gives 1; frames of Pong, mostly background, gave 42 to 63 of 1,024."""
MIN_SHARPNESS = 0.5
"""Energy of edges where something changes, over the real one's: a thing shown at half strength in
two places has half. The bundled world has 0.96 in rebuilt frames, 0.73 in those of the latent
action model."""
MIN_RECALL = 0.05
"""Share of a kind of event that a living head finds; the bundled world's found 76 % of each sign at
its first evaluation."""

Guard = Callable[[Metrics], str | None]


def warnings(stage: str, metrics: Metrics) -> Iterator[tuple[str, str]]:
    """Yield kind and text of every trap that a stage's validation figures show.

    Example:
        >>> [kind for kind, _ in warnings("lam", {"perplexity": 1.0, "code_gain": 1.2})]
        ['action collapse']
    """
    for kind, guard in GUARDS.get(stage, {}).items():
        if text := guard(metrics):
            yield kind, text


def _dead_codebook(metrics: Metrics) -> str | None:
    perplexity = metrics["perplexity"]
    if perplexity >= MIN_TOKENIZER_PERPLEXITY:
        return None
    return (
        f"the codebook is used as if it had {perplexity:.2f} codes, so all patches look alike to "
        "the dynamics. The encoder has run away from its codes: lower "
        "training.tokenizer.learning_rate, or raise stack.tokenizer.quantizer.dead_usage"
    )


def _blurry_frames(metrics: Metrics) -> str | None:
    if (sharpness := metrics.get("sharpness", 1.0)) >= MIN_SHARPNESS:
        return None
    return (
        f"rebuilt edges have {sharpness:.0%} of their energy where something moves, and so will "
        "all imagined ones. A patch holds more than its code can say: lower "
        "stack.tokenizer.patch_size, or raise stack.tokenizer.change_weight"
    )


def _action_collapse(metrics: Metrics) -> str | None:
    perplexity, gain = metrics["perplexity"], metrics.get("code_gain", MIN_CODE_GAIN)
    if perplexity < MIN_LAM_PERPLEXITY:
        return (
            f"the latent actions are used as if there were {perplexity:.2f} of them. One code "
            "takes every transition: raise stack.lam.quantizer.dead_usage, or record play in which "
            "more is done"
        )
    if gain < MIN_CODE_GAIN:
        return (
            f"shuffled latent actions predict as well as the right ones (code gain {gain:.3f}). "
            "The decoder does without the code: raise stack.lam.change_weight, or lower "
            "stack.lam.decoder.temporal_window"
        )
    return None


def _blurry_futures(metrics: Metrics) -> str | None:
    if (sharpness := metrics.get("sharpness", 1.0)) >= MIN_SHARPNESS:
        return None
    return (
        f"predicted edges have {sharpness:.0%} of the real energy where something moves. Several "
        "futures share a code and are averaged: raise stack.lam.quantizer.num_codes or "
        "training.lam.max_steps"
    )


def _drift(metrics: Metrics) -> str | None:
    if "free_error" not in metrics:
        return None
    free, forced, steps = (metrics[name] for name in ("free_error", "forced_error", "free_steps"))
    if free < MIN_DRIFT_ERROR or free < MAX_DRIFT * steps * forced:
        return None
    return (
        f"{free:.1%} of tokens are wrong after {steps:.0f} steps on its own frames, {forced:.1%} "
        "after one step on real ones. It has not learned to go on from its own mistakes: raise "
        "stack.dynamics.rehearsal_share or stack.dynamics.max_corruption"
    )


def _silent_head(metrics: Metrics) -> str | None:
    recalls = {
        name.removeprefix("recall_"): value
        for name, value in metrics.items()
        if name.startswith("recall_") and name != "recall_0"
    }
    silent = [reward for reward, recall in recalls.items() if recall < MIN_RECALL]
    if not silent:
        return None
    return (
        f"rewards of {' and '.join(silent)} are hardly ever told where they are earned. Too few "
        "are shown: raise stack.reward.event_share, or record more with collect --min-events"
    )


GUARDS: dict[str, dict[str, Guard]] = {
    "tokenizer": {"dead codebook": _dead_codebook, "blurry frames": _blurry_frames},
    "lam": {"action collapse": _action_collapse, "blurry futures": _blurry_futures},
    "dynamics": {"drift": _drift},
    "reward": {"silent reward head": _silent_head},
}
