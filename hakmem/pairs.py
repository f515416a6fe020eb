"""Two sides of a comparison, run in turns: what a machine does to both of a pair cancels out."""

import time
from collections.abc import Callable
from typing import TypeVar

from hakmem.progress import Progress
from hakmem.system import turn

T = TypeVar("T")


def in_turns(
    first: Callable[[int], T], second: Callable[[int], T], pairs: int, progress: Progress, what: str
) -> list[tuple[T, T]]:
    """Run both sides pair by pair, the order changing from pair to pair, while nobody else measures on this host.

    Parameters
    ----------
    first, second : callable
        Run their side once, given the number of the pair.
    pairs : int
    progress : Progress
        Told after each pair, with what remains at the pace so far.
    what : str
        What is compared, for `progress`.

    Returns
    -------
    list of (first, second)
        What the sides returned, a pair an item.
    """
    found = []
    with turn.taken(progress.wait):
        begin = time.monotonic()
        for pair in range(pairs):
            if pair % 2:
                found.append((first(pair), second(pair)))
            else:
                after = second(pair)
                found.append((first(pair), after))
            left_s = (time.monotonic() - begin) / (pair + 1) * (pairs - pair - 1)
            progress.step(pair + 1, pairs, left_s, what)
    return found
