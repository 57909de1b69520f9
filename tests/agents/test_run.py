import copy
import json
import re
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file
from stable_baselines3.common.evaluation import evaluate_policy

from genie_gym.agents.config import AgentConfig, NetworkConfig, RealCheckConfig
from genie_gym.agents.games import OPENING_STEPS
from genie_gym.agents.policy import load_policy, read_card, save_policy
from genie_gym.agents.run import read_config, train_agent
from genie_gym.envs.replay import world_hash
from genie_gym.envs.sb3_vec_env import GenieWorldSB3VecEnv
from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.errors import ConfigError, DataError, MissingExtraError, PolicyError, WorldError
from genie_gym.models.bundle import read_card as read_world_card
from genie_gym.models.bundle import save_bundle
from genie_gym.models.state import Starts


def weights(run):
    return load_file(run / "policy" / "policy.safetensors")


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_run_leaves_a_policy_that_says_where_it_was_trained(trained, pipeline, world):
    card = read_card(trained / "policy")
    assert (card.algo, card.game, card.num_actions) == ("ppo", "Pong", 6)
    assert (card.world, card.world_hash) == (str(pipeline.bundle), world_hash(world))
    data = read_world_card(pipeline.bundle)["provenance"]["data"]
    assert data["num_frames"] - data["num_episodes"] == 2500
    assert (card.imagined_steps, card.real_steps, card.check_steps) == (96, 2500, 0)
    assert sorted(path.suffix for path in (trained / "policy").iterdir()) == [
        ".json",
        ".safetensors",
    ]
    assert len(list((trained / "checkpoints").iterdir())) == 2
    assert list(trained.glob("events.out.tfevents.*"))


@pytest.mark.parametrize("algo", ["ppo", "a2c", "dqn", "recurrent_ppo", "dreamer"])
def test_a_killed_run_reaches_what_an_unbroken_one_reaches(make_config, tmp_path, algo):
    if algo == "recurrent_ppo":
        pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    check = {"every": 32, "episodes": 1, "max_steps": 9, "compared_steps": 3}
    config = make_config(algo, real_check=check)
    train_agent(config, unbroken)
    # What a kill inside the last check leaves behind.
    shutil.copytree(unbroken, killed)
    *_, newest = sorted((killed / "checkpoints").iterdir())
    newest.unlink()
    shutil.rmtree(killed / "policy")
    metrics = (unbroken / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in metrics.splitlines()] == [32, 64, 96]
    (killed / "metrics.jsonl").write_text(metrics[:-20])

    torch.manual_seed(99)  # another process has other numbers
    train_agent(config, killed, resume=True)
    assert_same_weights(weights(killed), weights(unbroken))
    assert (killed / "metrics.jsonl").read_text() == metrics
    for folder in ("policy", "best"):
        assert read_card(killed / folder) == read_card(unbroken / folder)
    first, *_ = sorted((killed / "checkpoints").iterdir())
    begun = torch.load(first, weights_only=True)["actor" if algo == "dreamer" else "weights"]
    ended = {name.removeprefix("actor."): x for name, x in weights(unbroken).items()}
    assert any(not torch.equal(ended[name], x) for name, x in begun.items() if name in ended)


def test_a_finished_run_is_resumed_to_itself(trained, make_config, tmp_path):
    twin = shutil.copytree(trained, tmp_path / "twin")
    written = (twin / "config.yaml").stat().st_mtime_ns
    train_agent(make_config(), twin, resume=True)
    assert_same_weights(weights(twin), weights(trained))
    assert read_config(twin) == make_config()
    assert (twin / "config.yaml").stat().st_mtime_ns == written


def test_checks_in_the_real_game_keep_the_best_policy(make_config, tmp_path):
    check = {"every": 64, "episodes": 1, "max_steps": 30, "compared_steps": 7}
    train_agent(make_config(steps=64, real_check=check), tmp_path / "run")
    [line] = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    figures = json.loads(line)
    assert (figures["step"], figures["real_returns"]) == (64, [figures["real_return"]])
    assert figures["gap"] == figures["begun_imagined_return"] - figures["begun_real_return"]
    assert figures["is_exploiting"] is (figures["gap"] > 5)
    for folder in ("policy", "best"):
        card = read_card(tmp_path / "run" / folder)
        assert card.figures == figures and card.check_steps == 30 + 7 + OPENING_STEPS


def test_a_world_that_promises_too_much_raises_the_alarm(make_config, world, tmp_path, capsys):
    parts, card = world.parts, {"action_meanings": world.card["action_meanings"]}
    generous = copy.deepcopy(world.stack)
    with torch.no_grad():
        generous.reward.to_reward.bias.copy_(torch.tensor([-99.0, -99.0, 99.0]))
    save_bundle(tmp_path / "w", stack=generous, starts=world.starts, parts=parts, card=card)
    env = {"game": "Pong", "world": str(tmp_path / "w"), "max_episode_steps": 5}
    check = {"every": 64, "episodes": 1, "max_steps": 30, "compared_steps": 7}
    train_agent(make_config(steps=32, env=env, real_check=check), tmp_path / "run")
    text = "the policy earns 7.0 points more in the first 7 steps of an imagined game"
    assert f"warning, step 32: {text}" in capsys.readouterr().err


def test_stock_evaluation_takes_a_policy_of_single_frames(trained, pipeline):
    policy = load_policy(trained)
    envs = GenieWorldSB3VecEnv(3, world=str(pipeline.bundle), max_episode_steps=4)
    _, lengths = evaluate_policy(policy, envs, 6, return_episode_rewards=True, warn=False)
    assert lengths == [4] * 6


def test_a_run_is_not_overwritten_or_gone_on_with_differently(trained, make_config):
    with pytest.raises(DataError, match=re.escape("holds a run already. Go on with --resume")):
        train_agent(make_config(), trained)
    with pytest.raises(DataError, match="was begun with seed=0, but is to go on with 1"):
        train_agent(make_config(seed=1), trained, resume=True)
    with pytest.raises(DataError, match="holds no run of an agent"):
        read_config(trained / "policy")


def test_a_run_does_not_go_on_in_another_world(make_config, world, pipeline, tmp_path):
    bundle = shutil.copytree(pipeline.bundle, tmp_path / "bundle")
    env = {"game": "Pong", "world": str(bundle), "max_episode_steps": 5}
    config = make_config(steps=32, env=env)
    train_agent(config, tmp_path / "run")
    fewer = Starts(world.starts.tokens[:8], world.starts.actions[:8])
    card = {"action_meanings": world.card["action_meanings"]}
    save_bundle(bundle, stack=world.stack, starts=fewer, parts=world.parts, card=card)
    with pytest.raises(DataError, match=r"was begun in the world \w+, but '.*bundle' is now \w+\."):
        train_agent(config, tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named(trained, make_config, tmp_path):
    twin = shutil.copytree(trained, tmp_path / "twin")
    *_, newest = sorted((twin / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(DataError, match=r"step-0000000096.pt is damaged, .* Delete it"):
        train_agent(make_config(), twin, resume=True)


def test_a_checkpoint_of_another_version_is_refused(trained, make_config, tmp_path):
    twin = shutil.copytree(trained, tmp_path / "twin")
    *_, newest = sorted((twin / "checkpoints").iterdir())
    torch.save(torch.load(newest, weights_only=True) | {"version": 9}, newest)
    with pytest.raises(DataError, match="has version 9; this genie_gym reads 1"):
        train_agent(make_config(), twin, resume=True)


def test_checks_do_not_move_training(trained, make_config, tmp_path):
    check = {"every": 32, "episodes": 1, "max_steps": 9, "compared_steps": 3}
    train_agent(make_config(real_check=check), tmp_path / "run")
    assert_same_weights(weights(tmp_path / "run"), weights(trained))


@pytest.mark.parametrize("algo", ["ppo", "dreamer"])
def test_a_world_without_rewards_teaches_nothing(make_config, world, tmp_path, algo):
    parts = world.parts - {"reward"}
    card = {"action_meanings": world.card["action_meanings"]}
    save_bundle(tmp_path / "mute", stack=world.stack, starts=world.starts, parts=parts, card=card)
    config = make_config(algo, env={"game": "Pong", "world": str(tmp_path / "mute")})
    with pytest.raises(WorldError, match="no trained 'reward' part"):
        train_agent(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_settings_are_refused(make_config, tmp_path):
    for options, text in (
        ({"n_step": 8}, "PPO has no option 'n_step'. Did you mean 'n_steps'?"),
        ({"batch_size": 1}, "PPO refuses algo_options"),
        ({"seed": 3}, "PPO has no option 'seed'"),
    ):
        with pytest.raises(ConfigError, match=re.escape(text)):
            train_agent(make_config(algo_options=options), tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"seed": 2**32}, "seed must lie in [0, 2**32)"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"min_learning_rate": 1.0}, "min_learning_rate must lie between 0 and learning_rate"),
    ],
)
def test_settings_out_of_range_are_refused(values, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        AgentConfig(env=WorldEnvConfig(game="Pong"), **values)


@pytest.mark.parametrize(
    ("config", "values", "text"),
    [
        (NetworkConfig, {"num_frames": 0}, "network.num_frames must be at least 1, got 0"),
        (NetworkConfig, {"token_dim": 0}, "network.token_dim must be at least 1, got 0"),
        (NetworkConfig, {"channels": (3,)}, "network.channels must be two numbers of 1 or more"),
        (RealCheckConfig, {"every": 0}, "real_check.every must be at least 1, got 0"),
        (RealCheckConfig, {"episodes": -1}, "real_check.episodes must be 0 or more, got -1"),
        (RealCheckConfig, {"max_steps": 0}, "real_check.max_steps must be at least 1, got 0"),
        (RealCheckConfig, {"compared_steps": 0}, "real_check.compared_steps must be at least 1"),
        (RealCheckConfig, {"alarm_gap": 0.0}, "real_check.alarm_gap must be above 0, got 0.0"),
    ],
)
def test_settings_of_parts_out_of_range_are_refused(config, values, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        config(**values)


def test_latent_codes_are_no_actions_of_an_agent():
    env = WorldEnvConfig(game="Pong", action_mode="latent")
    with pytest.raises(ConfigError, match=r"env\.action_mode must be 'ale' for an agent"):
        AgentConfig(env=env)


def test_an_algorithm_that_is_not_installed_is_named(make_config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'genie-gym[contrib]'")):
        train_agent(make_config("recurrent_ppo"), tmp_path / "run")


def test_a_run_goes_on_from_a_former_policy_and_counts_its_steps(make_config, trained, tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    # A rate so small moves no weight in float32.
    still = {"learning_rate": 1e-30, "min_learning_rate": 0.0}
    train_agent(make_config(steps=32, init_from=str(trained), **still), tmp_path / "still")
    assert_same_weights(weights(tmp_path / "still"), weights(trained))

    config = make_config(steps=64, init_from=str(trained))
    train_agent(config, unbroken)
    card = read_card(unbroken / "policy")
    assert (card.imagined_steps, card.real_steps) == (96 + 64, 2500)
    shutil.copytree(unbroken, killed)
    *_, newest = sorted((killed / "checkpoints").iterdir())
    newest.unlink()
    train_agent(config, killed, resume=True)
    assert_same_weights(weights(killed), weights(unbroken))
    assert read_card(killed / "policy") == card


def test_a_run_does_not_go_on_from_another_policy(make_config, trained, tmp_path):
    former = shutil.copytree(trained, tmp_path / "former")
    config = make_config(steps=32, init_from=str(former))
    train_agent(config, tmp_path / "run")
    card, tensors = read_card(former / "policy"), weights(former)
    save_policy(former / "policy", card, {name: x + 1 for name, x in tensors.items()})
    with pytest.raises(DataError, match=r"was begun with the weights \w+, but those of .* are now"):
        train_agent(config, tmp_path / "run", resume=True)
    text = r"has algo=ppo, but this run has a2c\. Use the old value, or begin without init_from"
    with pytest.raises(PolicyError, match=text):
        train_agent(make_config("a2c", init_from=str(former)), tmp_path / "other")
    assert not (tmp_path / "other").exists()
