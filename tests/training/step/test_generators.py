"""States of the global generators: taken, put back, left alone."""

import torch

from rsconvert.training.step.generators import generator_states, restored_generators, set_generators

CPU = torch.device("cpu")


def test_a_state_gives_the_same_numbers_again() -> None:
    with torch.random.fork_rng(devices=[]):
        states = generator_states(CPU)
        first, second = torch.rand(3), torch.rand(3)
        set_generators(states, CPU)
        assert torch.equal(torch.rand(3), first)
        with restored_generators(states, CPU):
            assert torch.equal(torch.rand(3), first)
        assert torch.equal(torch.rand(3), second), "outside it goes on from where it was"


def test_without_a_state_a_generator_goes_on() -> None:
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        set_generators({}, CPU)
        assert torch.equal(torch.get_rng_state(), before)
