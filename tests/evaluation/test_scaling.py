from dataclasses import replace

import pytest
import torch

from genie_gym.evaluation.scaling import PeakBytes, exponent, flags, scaling

KILO = 4 * 1000
"""Bytes of a thousand float32 numbers."""


def test_the_exponent_of_a_power_law_is_found():
    sizes = [1, 2, 4, 8]
    assert exponent(sizes, [5 * size**2 for size in sizes]) == pytest.approx(2)
    assert exponent(sizes, [3.0] * 4) == pytest.approx(0)


def test_more_than_linear_growth_is_flagged():
    found = flags("step against T", {"bytes": 1.21, "seconds": 1.2})
    assert found == ["step against T: bytes grow with exponent 1.21"]


def test_the_peak_counts_what_is_alive_at_once():
    x = torch.zeros(1000)
    with PeakBytes() as counter:
        first = x + 1
        second = first + 1
        del first
        third = second + 1
        del second, third
    assert counter.peak == 2 * KILO


def test_views_and_changes_in_place_take_no_memory():
    x = torch.zeros(1000)
    with PeakBytes() as counter:
        made = x + 1
        made.view(10, 100)[3].mul_(2)
    assert counter.peak == KILO


def test_what_a_backward_will_need_stays_alive():
    x, weight = torch.zeros(1000), torch.ones(1000, requires_grad=True)

    def forward():
        for_backward = (x + weight).exp()
        return for_backward.exp()

    with PeakBytes() as counter:
        result = forward()
    # exp keeps its result for the backward; the sum it was taken of is gone.
    assert counter.peak == 2 * KILO
    with torch.no_grad(), PeakBytes() as counter:
        result = result.detach() + 1
    assert counter.peak == KILO


def test_every_forward_is_measured_against_every_dimension(world, monkeypatch):
    monkeypatch.setattr("genie_gym.evaluation.scaling.LENGTHS", (4, 8, 16))
    config = replace(world.config, height=32, width=32)
    report = scaling(config, repeats=1)
    assert set(report["forwards"]) == {"tokenizer_encode", "dynamics_training", "world_step"}
    for dimensions in report["forwards"].values():
        for figures in dimensions.values():
            assert len(figures["sizes"]) == len(figures["peak_bytes"]) == len(figures["seconds"])
            assert min(figures["peak_bytes"]) > 0
            assert min(figures["seconds"]) > 0
    grows = {
        name: {dimension: figures["exponents"]["bytes"] for dimension, figures in sweep.items()}
        for name, sweep in report["forwards"].items()
    }
    assert 0.7 < grows["dynamics_training"]["batch"] < 1.1
    # A step reads a cache of fixed length, however long the past was.
    assert abs(grows["world_step"]["T"]) < 0.01
    attended, plain = (
        report["forwards"]["dynamics_training"][name]["peak_bytes"]
        for name in ("pixels", "pixels_without_spatial_attention")
    )
    assert all(one > other for one, other in zip(attended, plain, strict=True))
