"""The bounds of a dynamic pool: the supervisor decides with them, and `status` shows them."""

from msgspec import Struct


class PoolBounds(Struct, frozen=True):
    """From `min` to `max` workers, with at least `spare` of them idle while `max` allows it."""

    min: int
    max: int
    spare: int

    def fit(self, count: int) -> int:
        """The number within the bounds that is nearest to `count`."""
        return min(max(count, self.min), self.max)

    def moved(self, n: int, most: int) -> "PoolBounds":
        """Both bounds moved by `n`, and kept from 1 to `most`."""
        low, high = (max(1, min(bound + n, most)) for bound in (self.min, self.max))
        return PoolBounds(low, high, self.spare)

    def at(self, count: int) -> "PoolBounds":
        """No room to move: `count` workers."""
        return PoolBounds(count, count, self.spare)
