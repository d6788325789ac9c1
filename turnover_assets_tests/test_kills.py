"""Killed at any step, nothing is lost, doubled or torn, and the next run heals."""

import random
from pathlib import Path

import pytest

from turnover_assets_tests import kills
from turnover_assets_tests.kills import Bench, Figures


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench.made(tmp_path_factory.mktemp("kills"))


@pytest.mark.parametrize("step", kills.STEPS)
def test_a_kill_at_any_step_harms_nothing(bench: Bench, tmp_path: Path, step: str) -> None:
    figures = Figures()

    kills.play(bench, tmp_path / "round", figures, random.Random(step), step)

    assert figures.kills == 1
    assert (figures.harm, figures.told) == (0, [])


def test_kills_at_random_moments_harm_nothing(bench: Bench, tmp_path: Path) -> None:
    figures, dice = Figures(), random.Random(5)

    while figures.kills < 3:
        kills.play(bench, tmp_path / "round", figures, dice, None)

    assert (figures.harm, figures.told) == (0, [])
