import json
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
import yaml

from genie_gym.config import from_dict, load_yaml, override, to_dict
from genie_gym.errors import ConfigError
from genie_gym.training.config import RunConfig, StageConfig

CONFIGS = Path(__file__).parents[1] / "configs"
# Those of `genie-gym train`; tests/agents reads those of agents.
PRESETS = sorted(
    path for path in CONFIGS.glob("*.yaml") if path.stem not in ("dyna-pong", "ppo-pong")
)


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """Part of a car."""

    size: int = 20
    grip: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Car:
    """One value of every kind that configs hold."""

    name: str = "car"
    is_fast: bool = False
    fuel: Literal["petrol", "none"] = "none"
    gears: tuple[float, ...] = (1.0, 2.0)
    limit: int | None = None
    wheel: Wheel = field(default_factory=Wheel)


def leaves(values, path=()):
    """Return every (path, value) of nested mappings."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def test_absent_keys_keep_their_defaults():
    assert from_dict(Car, {"wheel": {"size": 3}}) == Car(wheel=Wheel(size=3))


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    text = r"config.wheel: unknown key 'sizes'. Did you mean 'size'\? Known: \['size', 'grip'\]"
    with pytest.raises(ConfigError, match=text):
        from_dict(Car, {"wheel": {"sizes": 3}})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"name": 3}, "config.name must be str, got 3"),
        ({"is_fast": 1}, "config.is_fast must be bool, got 1"),
        ({"is_fast": "yes"}, "config.is_fast must be bool, got 'yes'"),
        ({"limit": 1.5}, "config.limit must be int, got 1.5"),
        ({"limit": True}, "config.limit must be int, got True"),
        ({"fuel": "coal"}, r"config.fuel must be one of \['petrol', 'none'\], got 'coal'"),
        ({"gears": 1.0}, "config.gears must be a list, got 1.0"),
        ({"gears": ["x"]}, "config.gears must be a number, got 'x'"),
        ({"wheel": 4}, "config.wheel must be a mapping, got 4"),
        ({"wheel": {"grip": "much"}}, "config.wheel.grip must be a number, got 'much'"),
        ({"wheel": {"grip": True}}, "config.wheel.grip must be float, got True"),
        ({"wheel": {"size": None}}, "config.wheel.size must be int, got None"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(values, text):
    with pytest.raises(ConfigError, match=text):
        from_dict(Car, values)


def test_no_is_a_word_where_a_choice_has_that_name():
    assert from_dict(StageConfig, override({}, ["precision=no"])).precision == "no"
    with pytest.raises(ConfigError, match=r"fuel must be one of \['petrol', 'none'\], got False"):
        from_dict(Car, override({}, ["fuel=no"]))


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001"])
def test_a_number_may_be_written_in_any_way(text):
    values = override({}, [f"wheel.grip={text}"])
    assert from_dict(Car, values).wheel.grip == 0.001
    assert from_dict(Car, yaml.safe_load(f"wheel: {{grip: {text}}}")).wheel.grip == 0.001


def test_whole_numbers_serve_as_fractions_and_null_as_none():
    car = from_dict(Car, {"gears": [1, 2, 3], "limit": None, "wheel": {"grip": 1}})
    assert car.gears == (1.0, 2.0, 3.0) and isinstance(car.wheel.grip, float)
    assert car.limit is None


def test_an_override_reaches_any_depth_and_leaves_the_original_alone():
    values = {"wheel": {"size": 1}, "name": "a"}
    changed = override(values, ["wheel.grip=0.25", "limit=7", "gears=[1, 4]", "name=b"])
    car = from_dict(Car, changed)
    assert (car.wheel, car.limit, car.name) == (Wheel(size=1, grip=0.25), 7, "b")
    assert car.gears == (1.0, 4.0)
    assert values == {"wheel": {"size": 1}, "name": "a"}


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("seed", "an override is written key.key=value, got 'seed'"),
        ("wheel.grip={", r"'wheel.grip=\{': '\{' is not YAML"),
        ("name.first=a", "'name.first=a': name is a value, not a mapping: 'car'"),
    ],
)
def test_an_override_that_cannot_be_read_is_refused(assignment, text):
    with pytest.raises(ConfigError, match=text):
        override({"name": "car"}, [assignment])


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_survives_the_way_to_yaml_and_back(path):
    config = from_dict(RunConfig, load_yaml(path))
    text = yaml.safe_dump(to_dict(config))
    assert from_dict(RunConfig, yaml.safe_load(text)) == config


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_value_of_a_preset_can_be_overridden(path):
    default = load_yaml(path)
    for keys, value in leaves(to_dict(from_dict(RunConfig, default))):
        of_tokens = ("dynamics", "reward", "action_map")
        if keys[-1].endswith("_flip") or ("augment" in keys and keys[1] in of_tokens):
            continue  # refused: Pong has no mirror image, and tokens have no pictures
        if ".".join(keys).endswith(("lam.decoder.temporal_window", "action_map.clip_length")):
            continue  # refused: a longer history needs no code, and a label is one transition
        new = value
        if isinstance(value, bool):
            new = not value
        elif isinstance(value, int):
            new = value + 2
        elif isinstance(value, float):
            new = 0.5
        if isinstance(value, list | tuple):
            new = [-2.0, 2.0]
        changed = override(default, [f"{'.'.join(keys)}={json.dumps(new)}"])
        assert dict(leaves(changed))[keys] == new
        node = from_dict(RunConfig, changed)
        for key in keys:
            node = getattr(node, key)
        assert node == (tuple(new) if isinstance(new, list) else new), keys


def test_every_value_of_a_run_says_what_it_means():
    def undocumented(cls):
        source = (
            Path(__file__).parents[1] / (cls.__module__.replace(".", "/") + ".py")
        ).read_text()
        for one in fields(cls):
            declared = source.split(f"    {one.name}: ", 1)[1]
            if '"""' not in declared.split("\n    def ")[0]:
                yield f"{cls.__name__}.{one.name}"
            kind = one.default_factory() if callable(one.default_factory) else None
            if is_dataclass(kind):
                yield from undocumented(type(kind))

    assert list(undocumented(RunConfig)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not YAML: "),
        ("- 1", "must hold a mapping of keys, got list"),
        ("", "must hold a mapping of keys, got NoneType"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_yaml(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused_with_where_presets_lie(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml does not exist. Presets lie in configs/"):
        load_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"save_every": 0}, "save_every must be at least 1, got 0"),
        ({"clip_length": 1}, "clip_length must be at least 2 frames, got 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
    ],
)
def test_a_stage_refuses_what_cannot_train(changes, text):
    with pytest.raises(ConfigError, match=text):
        replace(StageConfig(), **changes)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_validation_share_outside_of_0_to_1_is_refused(share):
    with pytest.raises(ConfigError, match="validation_share must lie between 0 and 1"):
        RunConfig(validation_share=share)


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        (
            "training.dynamics.augment.max_shift=4",
            r"training.dynamics.augment.max_shift must stay off, got 4: stage 'dynamics' learns "
            r"from cached tokens.*Augment training.tokenizer or training.lam",
        ),
        (
            "training.reward.augment.max_stride=2",
            r"training.reward.augment.max_stride must stay off, got 2: .* what one action does",
        ),
        (
            "training.lam.augment.horizontal_flip=true",
            r"augment.horizontal_flip must be false for Pong: its mirror image is another game. "
            r"Games that allow it: \['Breakout', 'MsPacman'\]",
        ),
        ("training.lam.augment.vertical_flip=true", r"for Pong.*allow it: \['Boxing'\]"),
        ("training.lam.augment.max_shift=-1", "augment.max_shift must be 0 or more, got -1"),
        ("training.lam.augment.contrast=1.5", r"augment.contrast must lie in \[0, 1\], got 1.5"),
        ("training.lam.augment.max_stride=0", "augment.max_stride must be at least 1, got 0"),
        ("training.lam.augment.crop=4", "unknown key 'crop'. Known: "),
        ("memory_gib=-1", "memory_gib must be 0 or more, got -1"),
    ],
)
def test_augmentation_that_a_stage_or_a_game_does_not_allow_is_refused(assignment, text):
    values = override(load_yaml(CONFIGS / "tiny.yaml"), [assignment])
    with pytest.raises(ConfigError, match=text):
        from_dict(RunConfig, values)


def test_augmentation_is_switched_on_for_one_stage_alone():
    assignments = ["training.lam.augment.max_stride=3", "stack.game=Breakout"]
    assignments.append("training.tokenizer.augment.horizontal_flip=true")
    config = from_dict(RunConfig, override(load_yaml(CONFIGS / "tiny.yaml"), assignments)).training
    assert (config.tokenizer.augment.changed_keys, config.lam.augment.changed_keys) == (
        ["horizontal_flip"],
        ["max_stride"],
    )
    assert not config.dynamics.augment.changed_keys and not config.reward.augment.changed_keys
