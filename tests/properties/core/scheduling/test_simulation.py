"""The whole core in virtual time, with faults of every kind far more often than anybody has them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation import Faults, Simulation

SEEDS = st.integers(0, 2**32 - 1)
OFTEN = Faults(
    death=0.08, restart=0.08, silence=0.08, doubled=0.1, slow=0.1, detach=0.08, update=0.05, cancel=0.1, timeout=0.5
)


@given(SEEDS, st.integers(1, 6), st.integers(1, 60))
def test_nothing_lost_nothing_doubled_whatever_fails(seed: int, workers: int, tasks: int) -> None:
    simulation = Simulation(seed, workers, tasks, OFTEN)
    simulation.run(validate=True)
    assert simulation.check() == []


@given(SEEDS)
@settings(max_examples=10)
def test_a_seed_reproduces_a_run_exactly(seed: int) -> None:
    first, second, other = Simulation(seed, 4, 100), Simulation(seed, 4, 100), Simulation(seed + 1, 4, 100)
    for simulation in (first, second, other):
        simulation.run()
    assert (first.digest, first.events, first.now) == (second.digest, second.events, second.now)
    assert first.digest != other.digest
