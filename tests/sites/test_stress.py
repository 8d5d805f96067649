"""A little of `make stress`: interrupts at random instants, and threads beside each other."""

import signal

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# an interrupt in a callback of the garbage collector, such as hypothesis's, goes no further
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
def test_an_interrupt_at_a_random_instant_leaves_nothing_behind(stress):
    assert not stress.interrupts(60, seed=1)


def test_threads_that_refine_train_and_trace_leave_nothing_behind(stress):
    leaks, done = stress.threads(1.0, seed=1)
    assert not leaks
    assert done["train"]
    assert done["trace"]
