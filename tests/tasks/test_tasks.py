"""Every task: repeatable from its seed, balanced, with features that hold for its rows."""

import pytest

from scrubjay.errors import AddressError
from scrubjay.tasks import TASKS, task


@pytest.mark.parametrize("name", TASKS)
def test_same_seed_same_rows(name):
    assert task(name, 50, seed=3).digest == task(name, 50, seed=3).digest
    assert task(name, 50, seed=3).digest != task(name, 50, seed=4).digest


@pytest.mark.parametrize("name", TASKS)
def test_rows_and_features(name):
    data = task(name, 20, seed=0)
    assert len(data) == 20
    assert data.name == name
    assert data.features
    assert all(feature.description for feature in data.features.values())


def test_unknown_task():
    with pytest.raises(AddressError, match=r"task 'bracket' was asked for; .* did you mean brackets"):
        task("bracket", 1, seed=0)
