"""Kernels that generate allocation traces, compiled by numba, each documented in hakmem/traces/generate.py.

Every kernel fills `out` (shape ``(n, 2)``, uint64: the two words of an event) from where its state `s` stands and
returns how many events it wrote; 0 is the end. Called again it goes on, so traces of any length need the memory of one
piece.
Only integers are computed with: the same parameters give the same bytes on every machine.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import numpy as np
from numba import njit

from hakmem.traces.events import CALLOC, EXIT, FREE, MALLOC, MARK

BURST = 64  # events of one thread before the next one has its turn
RAMP_CHURN_SLOTS = 400
PHASES_BURST = 640
PHASES_SLOTS = 400
TICKS_AHEAD = 12
MOST_ROUNDS = 2**31 - 1
EXPONENTIAL_CELLS = 1024
LONG = np.uint64(1 << 62)  # far behind the last edge: nothing is drawn anew from here on
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # what a draw adds to the state of SplitMix64


@njit(cache=True, inline="always")
def emit(out, n, op, slot, size, thread):
    """Write event number n and return the next number."""
    out[n, 0] = np.uint64(slot) | np.uint64(thread) << np.uint64(32) | np.uint64(op) << np.uint64(48)
    out[n, 1] = np.uint64(size)
    return n + 1


@njit(cache=True, inline="always")
def random32(rng):
    """Draw from xorshift32 with the shifts 13, 17, 5: the generator of the drivers; its state is rng[0]."""
    r = rng[0]
    r ^= (r << np.uint64(13)) & np.uint64(0xFFFFFFFF)
    r ^= r >> np.uint64(17)
    r ^= (r << np.uint64(5)) & np.uint64(0xFFFFFFFF)
    rng[0] = r
    return np.int64(r)


@njit(cache=True, inline="always")
def scrambled(z):
    """Scramble a state into 64 random bits, as SplitMix64 does (Steele, Lea and Flood, 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, inline="always")
def random64(rng):
    """Draw 64 bits from SplitMix64; its state is rng[0]."""
    rng[0] += GOLDEN
    return scrambled(rng[0])


@njit(cache=True, inline="always")
def below(rng, limit):
    """Draw a whole number below a limit of at most 2^32."""
    return np.int64(((random64(rng) >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32))


@njit(cache=True, inline="always")
def draw_cell(rng, threshold, alias):
    """Draw the number of a cell of a `tables.Table`."""
    r = random64(rng)
    cell = np.int64(((r >> np.uint64(32)) * np.uint64(len(alias))) >> np.uint64(32))
    other = alias[cell]
    return cell if (r & np.uint64(0xFFFFFFFF)) < threshold[cell] else other


@njit(cache=True, inline="always")
def draw(rng, threshold, alias, low, width):
    """Draw from a `tables.Table`.

    A cell of one number needs no second draw. No branch says so, it could not be predicted: the draw is made all the
    same, gives 0, and the generator stays where it was.
    """
    cell = draw_cell(rng, threshold, alias)
    wide = width[cell]
    next_state = rng[0] + GOLDEN
    offset = ((scrambled(next_state) >> np.uint64(32)) * np.uint64(wide)) >> np.uint64(32)
    rng[0] = next_state if wide > 1 else rng[0]
    return low[cell] + np.int64(offset)


# ---- the drivers' own sequences --------------------------------------------------------------------------------------


@njit(cache=True)
def mixed(out, rng, held, slots):
    """Fill all of `out`; `held` says which slots are occupied."""
    for n in range(len(out)):
        r = random32(rng)
        slot = r % slots
        if held[slot]:
            emit(out, n, FREE, slot, 0, 0)
        else:
            emit(out, n, MALLOC, slot, 16 + (r & 0x3FF), 0)
        held[slot] = not held[slot]
    return len(out)


@njit(cache=True)
def battle(out, s, blocks, size):
    """State: s[0] events so far. Slot 0 holds the pointers."""
    n = 0
    while n < len(out) and s[0] < 2 * blocks + 5:
        at = s[0]
        s[0] += 1
        if at == 0:
            n = emit(out, n, CALLOC, 0, 8 * blocks, 0)
        elif at <= blocks:
            n = emit(out, n, MALLOC, at, size, 0)
        elif at == blocks + 1:
            n = emit(out, n, MARK, 0, 0, 0)
        elif at <= 2 * blocks + 1:
            n = emit(out, n, FREE, at - blocks - 1, 0, 0)
        elif at == 2 * blocks + 3:
            n = emit(out, n, FREE, 0, 0, 0)
        else:
            n = emit(out, n, MARK, 1 if at == 2 * blocks + 2 else 2, 0, 0)
    return n


@njit(cache=True)
def ramp(out, s, fill_rng, churn_rng, held, blocks, keep_each, churn):
    """State: s[0] stage, s[1] position in it. Slot 0 holds the pointers, the churn has slots of its own."""
    n = 0
    while n < len(out) and s[0] < 4:
        at = s[1]
        s[1] += 1
        if s[0] == 0:  # fill
            if at == 0:
                n = emit(out, n, CALLOC, 0, 8 * blocks, 0)
            elif at <= blocks:
                n = emit(out, n, MALLOC, at, 16 + (random32(fill_rng) & 0x3FF), 0)
        elif s[0] == 1:  # thin out
            if at > 0 and at <= blocks and (at - 1) % keep_each != 0:
                n = emit(out, n, FREE, at, 0, 0)
        elif at > 0 and at <= churn:
            r = random32(churn_rng)
            slot = r % RAMP_CHURN_SLOTS
            n = emit(
                out, n, FREE if held[slot] else MALLOC, blocks + 1 + slot, 0 if held[slot] else 16 + (r & 0x3FF), 0
            )
            held[slot] = not held[slot]
        if at == (blocks if s[0] < 2 else churn) + 1:
            n = emit(out, n, MARK, s[0], 0, 0)
            s[0], s[1] = (4 if s[0] == 2 else s[0] + 1), 0
    return n


@njit(cache=True)
def phases(out, s, rng, work_rng, ids, sizes, held, cycles, grow, shrink, work):
    """State: s[0] cycle, s[1] stage, s[2] position in a burst, s[3] blocks, s[4] bytes, s[5] marks so far.

    `ids` is a permutation of the slots, those in use first. A stage of 2 and 6 is a burst of work, 8 the long one.
    """
    n, room = 0, len(ids)
    if s[0] == 0:
        n = emit(out, n, CALLOC, room + PHASES_SLOTS, 16 * room, 0)
        s[0] = 1
    while n + 2 <= len(out) and s[0] <= cycles:
        stage = s[1]
        if stage == 0 and s[4] < grow and s[3] < room:
            size = 16 + (random32(rng) & 0x3FF)
            n = emit(out, n, MALLOC, ids[s[3]], size, 0)
            sizes[s[3]] = size
            s[3] += 1
            s[4] += size
        elif stage == 4 and s[4] > shrink and s[3] > 0:
            victim, last = random32(rng) % s[3], s[3] - 1
            n = emit(out, n, FREE, ids[victim], 0, 0)
            s[4] -= sizes[victim]
            ids[victim], ids[last] = ids[last], ids[victim]
            sizes[victim] = sizes[last]
            s[3] = last
        elif stage % 4 == 2 and s[2] < PHASES_BURST or stage == 8 and s[2] < work:
            r = random32(work_rng)
            slot = r % PHASES_SLOTS
            if held[slot]:
                n = emit(out, n, FREE, room + slot, 0, 0)
            n = emit(out, n, MALLOC, room + slot, 16 + (r & 0x3FF), 0)
            held[slot] = True
            s[2] += 1
        else:
            if stage % 2 == 1:
                n = emit(out, n, MARK, s[5], 0, 0)
                s[5] += 1
            s[1], s[2] = (stage + 1) % 9, 0
            s[0] += stage == 8
    if n < len(out) and s[0] == cycles + 1:
        n = emit(out, n, MARK, s[5], 0, 0)
        s[0] += 1
    return n


# ---- threads ---------------------------------------------------------------------------------------------------------


@njit(cache=True, inline="always")
def end_all(out, n, threads):
    """Write the ends of all threads and return the next number."""
    for thread in range(threads):
        n = emit(out, n, EXIT, 0, 0, thread)
    return n


@njit(cache=True)
def larson(out, s, rng, table, threads, blocks, rounds):
    """State: s[0] blocks allocated at first, s[1] replacements so far. A set of blocks moves on to the next thread."""
    threshold, alias, low, width = table
    n = 0
    total = threads * blocks
    generation = threads * rounds * blocks
    while n + 2 + threads <= len(out):
        if s[0] < total:
            n = emit(out, n, MALLOC, s[0], draw(rng, threshold, alias, low, width), s[0] // blocks)
            s[0] += 1
            continue
        set_number = s[1] // BURST % threads
        thread = (set_number + s[1] // generation) % threads
        slot = set_number * blocks + below(rng, blocks)
        n = emit(out, n, FREE, slot, 0, thread)
        n = emit(out, n, MALLOC, slot, draw(rng, threshold, alias, low, width), thread)
        s[1] += 1
        if s[1] % generation == 0:
            n = end_all(out, n, threads)
    return n


@njit(cache=True)
def producer_consumer(out, s, pairs, size, backlog):
    """State: s[0] bursts so far over all pairs. The consumer lags so far behind that the backlog is full."""
    n = 0
    while n + 2 * BURST <= len(out):
        pair, first = s[0] % pairs, s[0] // pairs * BURST
        s[0] += 1
        base = pair * backlog
        if first >= backlog:
            for at in range(first, first + BURST):
                n = emit(out, n, FREE, base + at % backlog, 0, 2 * pair + 1)
        for at in range(first, first + BURST):
            n = emit(out, n, MALLOC, base + at % backlog, size, 2 * pair)
    return n


@njit(cache=True)
def thread_churn(out, s, rng, table, threads, blocks):
    """State: s[0] blocks replaced so far. Each generation frees what another thread of the one before left behind."""
    threshold, alias, low, width = table
    n = 0
    generation = threads * blocks
    while n + 2 + threads <= len(out):
        past, at = s[0] // generation, s[0] % generation
        turn, within = at // (threads * BURST), at % (threads * BURST)
        burst = min(BURST, blocks - turn * BURST)
        thread, block = within // burst, turn * BURST + within % burst
        slot = (thread + past) % threads * blocks + block
        if past > 0:
            n = emit(out, n, FREE, slot, 0, thread)
        n = emit(out, n, MALLOC, slot, draw(rng, threshold, alias, low, width), thread)
        s[0] += 1
        if s[0] % generation == 0:
            n = end_all(out, n, threads)
    return n


# ---- populations -----------------------------------------------------------------------------------------------------


@njit(cache=True)
def replace(out, s, rng, sizes, places, slots):
    """State: s[0] slots filled at first. Then slots drawn from the table `places` get new blocks."""
    threshold, alias, low, width = sizes
    place_threshold, place_alias, place_low, place_width = places
    n = 0
    while n + 2 <= len(out):
        if s[0] < slots:
            slot = s[0]
            s[0] += 1
        else:
            slot = draw(rng, place_threshold, place_alias, place_low, place_width)
            n = emit(out, n, FREE, slot, 0, 0)
        n = emit(out, n, MALLOC, slot, draw(rng, threshold, alias, low, width), 0)
    return n


@njit(cache=True)
def generational(out, s, rng, table, ids, nursery, survive):
    """State: s[0] stage (0 allocate, 1 collect), s[1] position in the nursery, s[2] old blocks so far.

    `ids` is a permutation of the slots: the nursery's, then the old ones'. `survive` is a share of 2^32.
    """
    threshold, alias, low, width = table
    n, old = 0, len(ids) - nursery
    while n + 1 <= len(out):
        at = s[1]
        if s[0] == 0:
            n = emit(out, n, MALLOC, ids[at], draw(rng, threshold, alias, low, width), 0)
        elif np.int64(random64(rng) >> np.uint64(32)) < survive:
            place = nursery + (s[2] if s[2] < old else below(rng, old))
            if s[2] < old:
                s[2] += 1
            else:
                n = emit(out, n, FREE, ids[place], 0, 0)
            ids[at], ids[place] = ids[place], ids[at]
        else:
            n = emit(out, n, FREE, ids[at], 0, 0)
        s[1] += 1
        if s[1] == nursery:
            s[0], s[1] = 1 - s[0], 0
    return n


@njit(cache=True)
def server(out, s, rng, table, ids, done, goal, kept, requests, objects, leak, threads):
    """State: s[0] leaks so far. `ids` holds the slots of each request (2 x objects), then those of the leaks.

    `done` and `goal` count the allocations of each request; `leak` is a share of 2^32.
    """
    threshold, alias, low, width = table
    n, room = 0, 2 * objects
    leaks = requests * room
    while n + room + 1 <= len(out):
        request = below(rng, requests)
        thread, first = request % threads, request * room
        if done[request] < goal[request]:
            n = emit(out, n, MALLOC, ids[first + done[request]], draw(rng, threshold, alias, low, width), thread)
            done[request] += 1
            continue
        begin = 0
        if goal[request] > 0 and np.int64(random64(rng) >> np.uint64(32)) < leak:
            place = leaks + s[0] % kept
            if s[0] >= kept:
                n = emit(out, n, FREE, ids[place], 0, thread)
            ids[first], ids[place] = ids[place], ids[first]
            s[0] += 1
            begin = 1
        for at in range(begin, done[request]):
            n = emit(out, n, FREE, ids[first + at], 0, thread)
        done[request], goal[request] = 0, 1 + below(rng, room)
    return n


@njit(cache=True)
def fragmenter(out, s, ids, limit, stride, rounds):
    """State: s[0] round, s[1] stage (0 fill, 1 thin out, 2 clear), s[2] position in it.

    s[3] kept blocks, s[4] kept bytes, s[5] blocks of this round, s[6] kept ones of this round.
    `ids` is a permutation of the slots, those of kept blocks first.
    """
    n = 0
    while n + 1 <= len(out):
        size = 16 << s[0]
        at, kept = s[2], s[3]
        if s[1] == 0:
            if s[4] + (at + 1) * size <= limit:
                n = emit(out, n, MALLOC, ids[kept + at], size, 0)
                s[2] += 1
            else:
                s[1], s[2], s[5] = 1, 0, at
        elif s[1] == 1:
            if at == s[5]:
                s[0], s[2], s[6] = s[0] + 1, 0, 0
                s[1] = 2 if s[0] == rounds else 0
                continue
            first = kept - s[6]
            if at % max(2, stride // size) == 0:
                ids[kept], ids[first + at] = ids[first + at], ids[kept]
                s[3], s[4], s[6] = kept + 1, s[4] + size, s[6] + 1
            else:
                n = emit(out, n, FREE, ids[first + at], 0, 0)
            s[2] += 1
        elif at < kept:
            n = emit(out, n, FREE, ids[at], 0, 0)
            s[2] += 1
        else:
            s[:] = 0
    return n


# ---- populations whose deaths are known at birth ---------------------------------------------------------------------
# Deaths wait in a wheel: `head` of a place's list, `waiting` (shape ``(slots, 2)``): the next in the list, and how many
# more times its place comes round before the block dies, which is every ``len(head)`` ticks, a power of two. The clock
# counts allocations. All are 32 bits wide: the wheel of a large heap does not fit into a cache.


@njit(cache=True, inline="always")
def schedule(s, head, waiting, slot, life):
    """Let a block die after so many ticks; state: s[0] clock."""
    place = (s[0] + life) & (len(head) - 1)
    waiting[slot, 0], waiting[slot, 1] = head[place], min(life // len(head), MOST_ROUNDS)
    head[place] = slot


@njit(cache=True, inline="always")
def next_death(s, head, waiting):
    """Take the next block that dies now, -1 if there is none; state: s[0] clock, s[2] 1 within a tick, s[3] next.

    Each tick loads what a later one will need (s[4] keeps the load from being dropped).
    """
    place = s[0] & (len(head) - 1)
    if s[2] == 0:
        later = head[(s[0] + TICKS_AHEAD) & (len(head) - 1)]
        s[3], head[place], s[2] = head[place], -1, 1
        s[4] ^= waiting[max(later, 0), 0]
    while s[3] >= 0:
        slot = s[3]
        s[3], rounds = waiting[slot, 0], waiting[slot, 1]
        if rounds == 0:
            return slot
        waiting[slot, 0], waiting[slot, 1] = head[place], rounds - 1
        head[place] = slot
    return np.int64(-1)


@njit(cache=True)
def empirical(out, s, rng, cells, lives, head, waiting, free_ids):
    """State: s[0] clock, s[1] free slots, s[2] to s[4] as `next_death` has them.

    Cells are (size low, size width), `lives` (life low, life width); a life of width 0 never ends.
    """
    threshold, alias, low, width = cells
    n = 0
    while n + 1 <= len(out) and s[1] > 0:
        slot = next_death(s, head, waiting)
        if slot >= 0:
            n = emit(out, n, FREE, slot, 0, 0)
            free_ids[s[1]] = slot
            s[1] += 1
            continue
        cell = draw_cell(rng, threshold, alias)
        s[1] -= 1
        slot = free_ids[s[1]]
        n = emit(out, n, MALLOC, slot, low[cell] + below(rng, width[cell]), 0)
        s[0] += 1
        s[2] = 0
        if lives[cell, 1] > 0:
            schedule(s, head, waiting, slot, lives[cell, 0] + below(rng, lives[cell, 1]))
    return n


@njit(cache=True, inline="always")
def upper_half(a, b):
    """Return the upper 64 bits of a product of 128."""
    low32, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    middle = (a & low32) * (b >> half) + (((a & low32) * (b & low32)) >> half)
    other = (a >> half) * (b & low32) + (middle & low32)
    return (a >> half) * (b >> half) + (middle >> half) + (other >> half)


@njit(cache=True, inline="always")
def lifetime(rng, edges, mean):
    """Draw from an exponential distribution and round down: `edges` of `tables.exponential`, mean in 2^-22.

    Whoever lies behind the last edge begins there anew: the distribution has no memory.
    """
    last, cells = np.uint64(len(edges) - 1), np.uint64(EXPONENTIAL_CELLS)
    drawn = np.uint64(0)
    r = random64(rng)
    while ((r >> np.uint64(32)) * cells) >> np.uint64(32) >= last and drawn < LONG:
        drawn += edges[last]
        r = random64(rng)
    cell = ((r >> np.uint64(32)) * cells) >> np.uint64(32)
    width = (edges[cell + np.uint64(1)] - edges[cell]) >> np.uint64(24)
    drawn += edges[cell] + ((width * (r & np.uint64(0xFFFFFFFF))) >> np.uint64(8))
    return np.int64(upper_half(drawn, np.uint64(mean)) >> np.uint64(16))


@njit(cache=True)
def fleet(out, s, rng, births, start, sizes, means, edges, head, waiting, free_ids):
    """State: s[0] clock, s[1] free slots, s[2] to s[4] of `next_death`, s[5] blocks of the starting set.

    A birth draws a size number k from the table `births`, and how many further births it sees before it dies.
    """
    threshold, alias, _, _ = births
    n = 0
    while n < len(out):
        if s[5] == len(start):
            slot = next_death(s, head, waiting)
            if slot >= 0:
                n = emit(out, n, FREE, slot, 0, 0)
                free_ids[s[1]] = slot
                s[1] += 1
                continue
            k, seen = draw_cell(rng, threshold, alias), 0
            s[0] += 1
            s[2] = 0
        else:  # who lives when the first birth comes is seen by it
            k, seen = start[s[5]], 1
            s[5] += 1
        if s[1] == 0:
            return -1
        s[1] -= 1
        slot = free_ids[s[1]]
        n = emit(out, n, MALLOC, slot, sizes[k], 0)
        schedule(s, head, waiting, slot, seen + lifetime(rng, edges, means[k]))
    return n


@njit(cache=True)
def shuffle(values, rng):
    """Put values into a random order (Fisher and Yates)."""
    for last in range(len(values) - 1, 0, -1):
        other = below(rng, last + 1)
        values[last], values[other] = values[other], values[last]
