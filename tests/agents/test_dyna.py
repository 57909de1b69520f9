"""Two rounds on the tiny world: nothing is learned, and all of it is made twice."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from collectors import record
from collectors.workers import play_episode
from genie_gym.agents import checkpoint as agent_checkpoint
from genie_gym.agents.config import AgentConfig
from genie_gym.agents.dyna import train_dyna
from genie_gym.agents.dyna_config import DynaConfig
from genie_gym.agents.policy import load_policy, read_card
from genie_gym.cli import main
from genie_gym.config import from_dict, load_yaml, override, to_dict
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import file_sha256
from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.errors import ConfigError, DataError, GameError
from genie_gym.models.bundle import load_world
from genie_gym.training import checkpoint as stage_checkpoint
from genie_gym.training.data import open_fitting
from genie_gym.training.export import choose_starts

CONFIGS = Path(__file__).parents[2] / "configs"
STAGE = {"max_steps": 2, "batch_size": 4, "save_every": 2, "eval_every": 2}
POLICY = Path("policy", "policy.safetensors")


class Killed(BaseException):
    """Stands for a kill."""


def make_values(**changes):
    world = load_yaml(CONFIGS / "tiny.yaml")
    world = override(world, ["stack.action_map.num_labels=20", "num_starts=4"])
    world["training"] = {name: stage | STAGE for name, stage in world["training"].items()}
    agent = {
        "steps": 32,
        "num_envs": 4,
        "save_every": 16,
        "algo_options": {"n_steps": 4, "batch_size": 16, "n_epochs": 1},
        "network": {"num_frames": 2, "channels": [2, 3], "feature_dim": 8},
        "real_check": {"every": 32, "episodes": 1, "max_steps": 9, "compared_steps": 3},
        "env": {"game": "Pong", "max_episode_steps": 5, "num_maskgit_steps": 1},
    }
    steps = {"real_steps": 401, "rounds": 2, "first_share": 0.6, "max_episode_steps": 50}
    later = {"dynamics_steps": 3, "reward_steps": 3, "explore_share": 0.5}
    return {"agent": agent, "world": world, **steps, **later, **changes}


def make_config(**changes):
    return from_dict(DynaConfig, make_values(**changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Go through both rounds. Not to be changed."""
    out = tmp_path_factory.mktemp("dyna") / "run"
    assert train_dyna(make_config(), out, record=record) == out / "policy"
    return out


def test_the_budget_of_real_steps_is_spent_and_not_exceeded(run):
    steps = [
        recording.num_frames - recording.num_episodes
        for recording in map(Recording.open, sorted(run.glob("round-*/data")))
    ]
    assert steps == [241, 160] and sum(steps) == 401


def test_the_first_round_plays_blindly_and_the_second_with_the_policy_of_the_first(run):
    first, second = (Recording.open(run / f"round-0{number}" / "data") for number in range(2))
    assert {episode.policy for episode in first.episodes} == {"repeat(0.9)"}
    sha256 = file_sha256(run / "round-00" / "agent" / POLICY)
    assert {episode.policy for episode in second.episodes} == {
        "repeat(0.9)",
        f"agent:agent({sha256[:12]})",
    }
    assert not {one.reset_seed for one in first.episodes} & {
        one.reset_seed for one in second.episodes
    }


def test_later_rounds_train_dynamics_and_rewards_on_and_keep_the_rest(run):
    first, second = (load_world(run / f"round-0{number}" / "world") for number in range(2))
    assert first.parts == second.parts
    for part in first.parts:
        old, new = (getattr(world.stack, part).state_dict() for world in (first, second))
        is_same = all(torch.equal(x, new[name]) for name, x in old.items())
        assert is_same == (part not in ("dynamics", "reward")), part
    steps = [world.card["provenance"]["steps"]["dynamics"] for world in (first, second)]
    assert steps == [2, 3]


def test_imagined_games_begin_in_the_play_of_all_rounds(run):
    world, config = load_world(run / "round-01" / "world"), make_config().world
    rows = open_fitting(sorted(run.glob("round-*/data")), config.stack).load(in_memory=False)
    everywhere = np.ones(len(rows.frames), np.bool_)
    expected = choose_starts(config, rows, everywhere, world.stack.tokenizer)
    assert torch.equal(world.starts.tokens, expected.tokens)
    assert torch.equal(world.starts.actions, expected.actions)


def test_a_card_counts_the_steps_of_all_rounds(run):
    first, second = (read_card(run / f"round-0{number}" / "agent/policy") for number in range(2))
    assert (first.real_steps, first.imagined_steps) == (241, 32)
    assert (second.real_steps, second.imagined_steps) == (401, 64)
    assert second.check_steps == 2 * first.check_steps == 2 * (9 + 3 + 8)
    assert read_card(run / "policy") == second
    assert load_policy(run).card.world == str(run / "round-01" / "world")


def test_a_run_without_its_last_agent_trains_it_again(run):
    policy = (run / POLICY).read_bytes()
    for folder in (run / "round-01" / "agent", run / "policy"):
        shutil.rmtree(folder)
    torch.manual_seed(99)  # another process has other numbers
    train_dyna(make_config(), run, record=record, resume=True)
    assert (run / POLICY).read_bytes() == policy


@pytest.mark.slow
def test_a_run_that_is_killed_everywhere_ends_as_an_unbroken_one(run, tmp_path, monkeypatch):
    seen = set()

    def kill_once(what):
        if what not in seen:
            seen.add(what)
            raise Killed

    def kill_after_saving(cls, step_of):
        save = cls.save

        def save_and_die(checkpoints, *content):
            save(checkpoints, *content)
            if "round-01" in checkpoints.folder.parts:
                kill_once((checkpoints.folder, step_of(*content)))

        monkeypatch.setattr(cls, "save", save_and_die)

    def play_and_die(settings, episode_id, max_actions, **options):
        if episode_id == 1:
            kill_once(settings.seed)
        return play_episode(settings, episode_id, max_actions, **options)

    kill_after_saving(stage_checkpoint.Checkpoints, lambda checkpoint: checkpoint.step)
    kill_after_saving(agent_checkpoint.Checkpoints, lambda learner, marks: learner.num_steps)
    monkeypatch.setattr("collectors.workers.play_episode", play_and_die)
    # The same name as the unbroken run, which its recordings hold.
    unbroken = run.rename(run.with_name("unbroken"))
    try:
        for _ in range(100):
            try:
                train_dyna(make_config(), run, record=record, resume=True, on_phase=kill_once)
                break
            except Killed:
                torch.manual_seed(99)  # another process has other numbers
        # Beginnings of phases, recordings, and the two saves of two stages and an agent.
        assert len(seen) == 6 + 2 + 2 * (2 + 1)
        for file in sorted(unbroken.glob("**/*.safetensors")):
            twin = run / file.relative_to(unbroken)
            one, two = load_file(file), load_file(twin)
            assert one.keys() == two.keys()
            assert all(torch.equal(x, two[name]) for name, x in one.items()), twin
        assert read_card(run / "policy") == read_card(unbroken / "policy")
    finally:
        shutil.rmtree(run)
        unbroken.rename(run)


def test_a_finished_run_is_resumed_to_itself(run):
    before = (run / POLICY).read_bytes()
    train_dyna(make_config(), run, record=record, resume=True)
    assert (run / POLICY).read_bytes() == before


def test_a_run_is_not_overwritten_or_gone_on_with_differently(run):
    with pytest.raises(DataError, match=re.escape("holds a run already. Go on with --resume")):
        train_dyna(make_config(), run, record=record)
    with pytest.raises(DataError, match="was begun with real_steps=401, but is to go on with 402"):
        train_dyna(make_config(real_steps=402), run, record=record, resume=True)
    text = "holds a run of another kind, or one that was changed: .*unknown key 'env'"
    with pytest.raises(DataError, match=text):
        train_dyna(make_config(), run / "round-00" / "agent", record=record, resume=True)


def test_a_run_does_not_go_on_with_a_changed_world(run, tmp_path):
    twin = shutil.copytree(run, tmp_path / "twin")
    config = load_yaml(twin / "round-01" / "agent" / "config.yaml")
    config["env"]["world"] = str(twin / "round-01" / "world")
    config["init_from"] = str(twin / "round-00" / "agent")
    (twin / "round-01" / "agent" / "config.yaml").write_text(json.dumps(config))
    shutil.rmtree(twin / "round-01" / "world")
    shutil.copytree(run / "round-00" / "world", twin / "round-01" / "world")

    def nothing(*_, **__):
        """Record no more: the data are there, under a policy of another folder."""

    with pytest.raises(DataError, match=r"was begun in the world \w+, but .* is now \w+\. Find"):
        train_dyna(make_config(), twin, record=nothing, resume=True)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"real_steps": 0}, "real_steps must be at least 1, got 0"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"real_steps": 9, "rounds": 10}, "rounds=10 and first_share=0.6 divide real_steps=9"),
        ({"first_share": 1.0}, "so that one has none. Lower rounds, or raise real_steps"),
        ({"first_share": 0.0}, "first_share must lie in (0, 1], got 0.0"),
        ({"repeat_prob": 1.0}, "repeat_prob must lie in [0, 1), got 1.0"),
        ({"explore_share": -0.1}, "explore_share must lie in [0, 1), got -0.1"),
        ({"later_rate": 0.0}, "later_rate must be above 0, got 0.0"),
        ({"dynamics_steps": 0}, "dynamics_steps must be at least 1, got 0"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        make_config(**changes)


@pytest.mark.parametrize(
    ("assignment", "error", "text"),
    [
        ("world.stack.game=Pnog", GameError, "unknown game 'Pnog'. Did you mean 'Pong'?"),
        ("world.stack.game=Breakout", ConfigError, "must be the same, got 'Breakout' and 'Pong'"),
        ("agent.env.world=pong", ConfigError, "agent.env.world must be left out, got 'pong'"),
        ("agent.init_from=pong", ConfigError, "agent.init_from must be left out, got 'pong'"),
        ("world.stack.num_actions=4", ConfigError, "Pong has 6 actions, but world.stack.num_acti"),
        ("agent.algo_options.n_step=4", ConfigError, "PPO has no option 'n_step'. Did you mean"),
        ("world.stack.height=16", ConfigError, "must be at least 20 pixels high and wide"),
    ],
)
def test_what_cannot_work_is_refused_before_a_real_step_is_spent(tmp_path, assignment, error, text):
    with pytest.raises(error, match=re.escape(text)):
        config = from_dict(DynaConfig, override(make_values(), [assignment]))
        train_dyna(config, tmp_path / "run", record=record)
    assert not (tmp_path / "run").exists()


def test_a_comma_in_the_folders_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--out must hold no comma"):
        train_dyna(make_config(), tmp_path / "a,b", record=record)


def test_the_steps_of_all_rounds_add_up():
    config = DynaConfig(agent=AgentConfig(env=WorldEnvConfig(game="Pong")), first_share=0.3)
    assert config.steps_by_round == (30_000, 17_500, 17_500, 17_500, 17_500)
    assert replace(config, rounds=1).steps_by_round == (100_000,)
    assert replace(config, real_steps=100, rounds=4).steps_by_round == (30, 24, 23, 23)


def test_later_rounds_train_shorter_and_more_gently():
    training = make_config(later_rate=0.25).later_world.training
    first = make_config().world.training
    assert training.dynamics.max_steps == training.reward.max_steps == 3
    assert training.dynamics.learning_rate == first.dynamics.learning_rate / 4 == 2.5e-3
    assert training.reward.min_learning_rate == first.reward.min_learning_rate / 4 == 2.5e-6
    assert training.tokenizer == first.tokenizer


def test_the_preset_fits_its_budget_and_survives_the_way_to_yaml_and_back():
    config = from_dict(DynaConfig, load_yaml(CONFIGS / "dyna-pong.yaml"))
    assert sum(config.steps_by_round) == config.real_steps == 100_000
    assert from_dict(DynaConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_the_command_goes_on_with_a_run_and_says_what_came_of_each_round(run, tmp_path, capsys):
    assert main(["agent", "dyna", "--out", str(run), "--resume"]) == 0
    *_, first, second, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"round 1: 241 real steps, 32 imagined, mean return .* -?\d\.\d\d", first)
    assert re.fullmatch(r"round 2: 401 real steps, 64 imagined, mean return .* -?\d\.\d\d", second)
    assert last == f"policy in {run / 'policy'}"
    for arguments, text in (
        (["--out", tmp_path / "new"], "name a --game, or a --config that does"),
        (["--out", run, "--resume", "--config=new.yaml"], "--config new.yaml does not count"),
        (["--out", tmp_path / "new", "--game=Pnog"], "unknown game 'Pnog'. Did you mean 'Pong'?"),
        (["--out", tmp_path / "new", "--game=Pong", "--real-steps=0"], "real_steps must be at l"),
    ):
        assert main(["agent", "dyna", *map(str, arguments)]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("genie-gym agent: ") and text in line
