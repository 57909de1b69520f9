import json
import operator
import re

import pytest
import torch
from tqdm import tqdm

from genie_gym.data.batch import Batch
from genie_gym.models.dynamics import Dynamics, DynamicsConfig
from genie_gym.models.tokenizer import change_weights, sharpness
from genie_gym.nn.transformer import TransformerConfig
from genie_gym.training.config import RunConfig
from genie_gym.training.guards import GUARDS, warnings
from genie_gym.training.loop import mean_metrics
from genie_gym.training.run_log import RunLog
from genie_gym.training.stages import rollout_errors

# What the bundled Pong world's parts reported at their first and last evaluation.
HEALTHY = {
    "tokenizer": [
        {"mse": 2.3e-5, "perplexity": 42.6, "sharpness": 0.9},
        {"mse": 8.9e-6, "perplexity": 61.8, "sharpness": 0.96},
    ],
    "lam": [
        {"perplexity": 3.84, "code_gain": 1.016, "sharpness": 0.9},
        {"perplexity": 4.2, "code_gain": 1.297, "sharpness": 0.73},
    ],
    "dynamics": [
        {"accuracy": 0.82},
        {"forced_error": 0.0044, "free_error": 0.0117, "free_steps": 4.0},
    ],
    "reward": [
        {"recall_-1": 0.775, "recall_0": 0.967, "recall_1": 0.761},
        {"recall_-1": 0.927, "recall_0": 1.0, "recall_1": 1.0},
    ],
}
BAD = [
    ("tokenizer", {"perplexity": 1.2}, "dead codebook", r"as if it had 1\.20 codes.*learning_rate"),
    (
        "tokenizer",
        {"perplexity": 40.0, "sharpness": 0.3},
        "blurry frames",
        r"30% of their energy.*lower stack\.tokenizer\.patch_size",
    ),
    (
        "lam",
        {"perplexity": 1.1, "code_gain": 1.3},
        "action collapse",
        r"as if there were 1\.10.*raise stack\.lam\.quantizer\.dead_usage",
    ),
    (
        "lam",
        {"perplexity": 7.5, "code_gain": 1.001},
        "action collapse",
        r"code gain 1\.001.*raise stack\.lam\.change_weight",
    ),
    (
        "lam",
        {"perplexity": 4.0, "code_gain": 1.3, "sharpness": 0.4},
        "blurry futures",
        r"40% of the real energy.*stack\.lam\.quantizer\.num_codes",
    ),
    (
        "dynamics",
        {"forced_error": 0.005, "free_error": 0.08, "free_steps": 4.0},
        "drift",
        r"8\.0% of tokens are wrong after 4 steps.*0\.5% after one.*rehearsal_share",
    ),
    (
        "reward",
        {"recall_-1": 0.9, "recall_0": 1.0, "recall_1": 0.0},
        "silent reward head",
        r"rewards of 1 are hardly ever told.*raise stack\.reward\.event_share",
    ),
]


@pytest.mark.parametrize("stage", HEALTHY)
def test_a_healthy_run_hears_nothing(stage):
    for metrics in HEALTHY[stage]:
        assert list(warnings(stage, metrics)) == []


@pytest.mark.parametrize(("stage", "metrics", "kind", "text"), BAD)
def test_a_trap_is_named_in_one_line_with_the_setting_to_change(stage, metrics, kind, text):
    [(found, line)] = warnings(stage, metrics)
    assert found == kind
    assert re.search(text, line) and "\n" not in line


@pytest.mark.parametrize(("stage", "metrics"), [bad[:2] for bad in BAD])
def test_every_setting_that_a_warning_names_exists(stage, metrics):
    [(_, line)] = warnings(stage, metrics)
    names = re.findall(r"(?:stack|training)\.[a-z_.]*[a-z_]", line)
    assert names
    for name in names:
        operator.attrgetter(name)(RunConfig())


def test_every_guard_has_a_bad_case():
    assert {(stage, kind) for stage, _, kind, _ in BAD} == {
        (stage, kind) for stage, guards in GUARDS.items() for kind in guards
    }


def test_errors_that_merely_add_up_over_a_rollout_are_no_drift():
    metrics = {"forced_error": 0.01, "free_error": 0.04, "free_steps": 4.0}
    assert not list(warnings("dynamics", metrics))


def test_a_perfect_network_has_not_drifted():
    metrics = {"forced_error": 0.0, "free_error": 0.0, "free_steps": 4.0}
    assert not list(warnings("dynamics", metrics))


def test_a_head_is_not_blamed_for_rewards_that_never_occur():
    assert not list(warnings("reward", {"recall_-1": 0.9, "recall_0": 1.0}))


def test_metrics_are_averaged_over_the_batches_that_have_them():
    parts = [{"loss": 1.0}, {"loss": 2.0, "recall_1": 0.25}, {"loss": 6.0, "recall_1": 0.75}]
    assert mean_metrics(parts) == {"loss": 3.0, "recall_1": 0.5}


def test_a_warning_is_printed_and_logged_once_a_kind(tmp_path, capsys):
    healthy, collapsed = HEALTHY["lam"][1], {**HEALTHY["lam"][1], "code_gain": 1.0}
    with tqdm(total=1, disable=True) as bar, RunLog(tmp_path, "lam", bar) as log:
        log.write(0, "train", {"loss": 1.0, "code_gain": 1.0, "perplexity": 1.0})
        for step, metrics in enumerate([healthy, collapsed, collapsed], 1):
            log.write(step, "validation", {"loss": 1.0, **metrics})
    printed = capsys.readouterr().err
    assert printed.count("warning, lam at step 2: action collapse: shuffled latent actions") == 1
    assert printed.count("warning") == 1
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [list(line.get("warnings", {})) for line in lines] == [[], [], ["action collapse"], []]


def test_the_mean_of_two_futures_has_half_of_their_edges():
    past, one, other = torch.zeros(3, 1, 1, 9, 9, 3)
    one[..., 2, 2, :], other[..., 6, 6, :] = 1, 1
    clip = torch.cat([past, one], dim=1)
    everywhere = torch.full_like(clip[..., :1], 2.0)
    target = torch.cat([one, other], dim=1)
    mean = (one + other).expand_as(target) / 2
    assert sharpness(target, target, everywhere) == {"sharpness": 1.0}
    assert sharpness(mean, target, everywhere)["sharpness"] == pytest.approx(0.5)
    assert sharpness(past.expand_as(target), target, everywhere) == {"sharpness": 0.0}


def test_edges_that_stand_still_do_not_count_as_sharp():
    clip = torch.rand(1, 2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    clip[:, 1] = clip[:, 0]
    assert sharpness(clip, clip, change_weights(clip, 10.0)) == {}


@pytest.fixture(scope="module")
def copying():
    """Untrained dynamics: it copies the last frame."""
    torch.manual_seed(0)
    transformer = TransformerConfig(num_layers=1, dim=16, num_heads=2, head_dim=8)
    generator = torch.Generator().manual_seed(0)
    return Dynamics(
        DynamicsConfig(transformer=transformer, num_maskgit_steps=2),
        codebook=torch.randn(8, 4, generator=generator),
        rows=2,
        columns=2,
        num_actions=3,
        num_latent_actions=2,
        generator=generator,
    ).eval()


def clip(*frames):
    tokens = torch.tensor(frames)[None, :, None].repeat(3, 1, 4)
    return Batch(tokens=tokens, actions=torch.zeros(3, len(frames) - 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("frames", "forced", "free", "steps"),
    [
        ((5, 5, 5, 5, 5), 0, 0, 3),
        ((0, 1, 2, 3, 4), 1, 1, 3),
        ((1, 1, 1, 2, 2, 2), 0, 1, 3),  # a change after the context: right again with real frames
        ((1, 2, 3, 1, 2, 3, 3, 3), 0, 1, 4),
    ],
)
def test_rollout_errors_of_a_network_that_copies(copying, frames, forced, free, steps):
    errors = rollout_errors(clip(*frames), copying)
    assert errors == {"forced_error": forced, "free_error": free, "free_steps": steps}


def test_a_clip_too_short_for_a_second_step_tells_nothing_of_drift(copying):
    assert rollout_errors(clip(1, 1, 2), copying) == {}


def test_a_collapse_of_the_rollout_is_heard(copying):
    [(kind, _)] = warnings("dynamics", rollout_errors(clip(1, 1, 1, 2, 2, 2), copying))
    assert kind == "drift"
