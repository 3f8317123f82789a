"""The timer wheel: no item is taken before its deadline and forgotten, none is taken late."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from prefork.worker.schedule.deadline_wheel import DeadlineWheel


class Item:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.wheel_time = inf


moments = st.floats(0.01, 100.0)


def test_an_empty_wheel_has_nothing_to_wait_for() -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel()
    assert wheel.next_tick == inf
    assert wheel.take_due(1e9) == []


@given(st.lists(moments, min_size=1))
def test_each_item_is_taken_within_a_tick_of_its_deadline(deadlines: list[float]) -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel()
    items = [Item(deadline) for deadline in deadlines]
    for item in items:
        wheel.put(item)
    taken: list[Item] = []
    while wheel.next_tick != inf:
        now = wheel.next_tick
        due = wheel.take_due(now)
        assert due
        for item in due:
            assert item.deadline <= now <= item.deadline + 0.25
            assert item.wheel_time == inf
        taken += due
    assert sorted(map(id, taken)) == sorted(map(id, items))


@given(moments, moments)
def test_an_item_whose_deadline_has_moved_is_put_back_once(first: float, second: float) -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel()
    item = Item(first)
    wheel.put(item)
    item.deadline = second
    wheel.put(item)
    assert wheel.take_due(second - 0.25) == []
    assert wheel.take_due(1e9) == [item]
    assert wheel.next_tick == inf


@given(st.lists(moments, min_size=2, max_size=5))
def test_an_item_that_was_removed_is_not_taken(deadlines: list[float]) -> None:
    wheel: DeadlineWheel[Item] = DeadlineWheel()
    gone, *others = [Item(deadline) for deadline in deadlines]
    for item in (gone, *others):
        wheel.put(item)
    wheel.remove(gone)
    wheel.remove(gone)
    assert gone not in wheel.take_due(1e9)
