"""How messages write a number of things."""


def quantity(number: int, what: str) -> str:
    """`0 workers`, `1 worker`, `2 workers`; `what` is a singular whose plural ends with -s."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
