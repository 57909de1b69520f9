"""The benchmark that measures one change to a world at a time, on the pipeline's tiny world."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from genie_gym.config import from_dict, load_yaml
from genie_gym.errors import ConfigError

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "ablations.py"
VARIANTS = SCRIPT.with_suffix(".yaml")
TINY = {
    "config": str(SCRIPT.parents[1] / "configs" / "tiny.yaml"),
    "budget": ["training.dynamics.max_steps=2", "training.dynamics.batch_size=2"],
    "evaluation": {"num_windows": 2, "forced_windows": 0},
    "variants": [
        {"name": "base"},
        {"name": "finished", "stages": []},
        {"name": "never-reread", "stages": [], "reencode_every": 1000},
    ],
}


@pytest.fixture(scope="module")
def ablations(load_benchmark):
    return load_benchmark("ablations")


@pytest.fixture(scope="module")
def table(ablations, pipeline, tmp_path_factory):
    """Run the command on three tiny variants, twice; return the table's lines after each."""
    folder = tmp_path_factory.mktemp("ablations")
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    paths = {"parts": pipeline.run, "data": pipeline.recording, "tuning": pipeline.recording}
    flags = [f"--{name}={path}" for name, path in paths.items()]
    tables = []
    for _ in range(2):
        ablations.main([f"--config={config}", f"--out={folder}", *flags])
        tables.append((folder / "table.md").read_text().splitlines())
    return tables


def test_every_variant_has_a_name_of_its_own_and_one_valid_change(ablations):
    listed = from_dict(ablations.Ablations, load_yaml(VARIANTS))
    names = [variant.name for variant in listed.variants]
    assert len(set(names)) == len(names)
    base, *others = listed.variants
    base_config = listed.run_config(base, VARIANTS)
    for variant in others:
        config = listed.run_config(variant, VARIANTS)
        assert (config != base_config) == bool(variant.set), variant.name


def test_a_stage_that_no_world_has_is_refused(ablations):
    values = {"name": "base", "stages": ["decoder"]}
    with pytest.raises(ConfigError, match=r"stages must be one of \['tokenizer', .*'decoder'"):
        from_dict(ablations.Variant, values)


def test_a_variant_borrows_all_but_what_it_trains_from_scratch_or_makes_tokens_for(ablations):
    def borrowed(*stages, **options):
        variant = ablations.Variant(name="some", stages=stages, **options)
        return [stage for stage in ablations.STAGES if variant.borrows(stage)]

    assert (
        borrowed()
        == borrowed("dynamics")
        == ["tokenizer", "lam", "dynamics", "reward", "action_map"]
    )
    assert borrowed("dynamics", from_scratch=True) == ["tokenizer", "lam", "reward", "action_map"]
    assert borrowed("tokenizer", from_scratch=True) == ["lam", "action_map"]


def test_every_variant_gets_one_row_and_only_once(table):
    first, second = table
    assert [line.split(" | ")[0] for line in first[2:]] == [
        "| base",
        "| finished",
        "| never-reread",
    ]
    assert {line.count("|") for line in first} == {13}
    assert first == second


def test_a_world_that_never_rereads_its_pictures_plays_as_it_is(table):
    *_, finished, never = table[0]
    figures, others = finished.split("|")[3:], never.split("|")[3:]
    assert figures == others
    assert figures[2].count(" / ") == 2


def test_rereading_puts_what_is_seen_in_the_place_of_the_state(ablations, world):
    parts = {"parts": world.parts, "card": {}}
    rereading = ablations.RereadingWorld(2, world.stack, world.starts, **parts)
    frames = world.decode(world.start(torch.tensor([0, 1])))[:, None]
    nothing, actions = torch.zeros(2, 0).long(), torch.tensor([2, 3])
    state, plain = rereading.encode(frames, nothing), world.encode(frames, nothing)
    seen = [frames]
    for _ in range(2):
        state = rereading.imagine(state, actions).state
        plain = world.imagine(plain, actions).state
        seen.append(world.decode(plain)[:, None])
    again = world.encode(torch.cat(seen, dim=1), torch.stack([actions, actions], dim=1))
    torch.testing.assert_close(asdict(state), asdict(again), rtol=0, atol=0)
