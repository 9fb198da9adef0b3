/* SPDX-License-Identifier: Apache-2.0
 *
 * How the CPU device's threads find out about each other: the three pairs of "store mine, then look at yours" of
 * cpu_queue.hpp and cpu_signals.hpp, under weak memory. A store that is not sequentially consistent waits in a buffer and
 * may become visible after a later load of the same thread; a read-modify-write is visible at once, and so is a
 * sequentially consistent store before the loads after it.
 *
 *   SYNC SLEEP  a worker counts itself as a sleeper and looks for work once more; who makes work visible then reads the
 *               count. The futex word's value, taken before, keeps a wake-up in between from being lost.
 *   SYNC ARM    the engine thread arms the descriptor and looks at the mark once more; a worker stores the mark and then
 *               reads whether it is armed.
 *   SYNC CHAIN  two stale windows: the engine closes the second and then reads the mark; the worker that retires the first
 *               stores the mark and then looks at the second. One of them retires the second.
 *
 * Checked: nobody sleeps for ever (invalid end state), and each window retires exactly once.
 *
 * Mutations (each must fail):
 *   RELAXED_WORK     the work's store is not visible when the count of sleepers is read
 *   COUNT_AFTER_LOOK a worker looks first and counts itself afterwards
 *   LATE_VALUE       the futex word is read after the look
 *   NO_COMPARE       the futex does not compare its word
 *   RELAXED_ARM      the arming is not visible when the mark is read
 *   RELAXED_MARK     the mark is not visible when the arming is read
 *   NO_SECOND_LOOK   the engine arms and sleeps without looking again
 *   RELAXED_RETIRED  the mark of the first window is not visible when the second one's gate is read
 *   CLOSE_LATE       the mark is read before the second window is closed
 *   RETIRE_TWICE     retiring looks at the gate and marks it in two steps
 */

/* Stores that may wait: what the others see, and a buffer of one. */
#define WORK 0
#define ARMED 1
#define MARK 2
#define HEAD 3
#define LOCATIONS 4
bool mem[LOCATIONS];
chan buffer[LOCATIONS] = [1] of { bool };
#define VISIBLE(at) empty(buffer[at])
inline store(at) { buffer[at]!true }
/* Before a load of the same thread: sequentially consistent, or not. */
#define ordered(at) VISIBLE(at)

active proctype flusher() {
end:
    do
    :: atomic { nempty(buffer[WORK]) -> buffer[WORK]?mem[WORK] }
    :: atomic { nempty(buffer[ARMED]) -> buffer[ARMED]?mem[ARMED] }
    :: atomic { nempty(buffer[MARK]) -> buffer[MARK]?mem[MARK] }
    :: atomic { nempty(buffer[HEAD]) -> buffer[HEAD]?mem[HEAD] }
    od
}

/* ---- SYNC SLEEP */
byte word, sleepers;
bool waiting;

active proctype waker() {
    store(WORK);
#ifndef RELAXED_WORK
    ordered(WORK);
#endif
    if
    :: sleepers > 0 -> word++; waiting = false /* futex wake */
    :: else
    fi
}

active proctype sleeper() {
    byte value;
    bool found;
    do
    :: found -> break
    :: else ->
#ifndef LATE_VALUE
        value = word;
#endif
#ifdef COUNT_AFTER_LOOK
        found = mem[WORK];
        sleepers++;
#else
        sleepers++;
        found = mem[WORK];
#endif
#ifdef LATE_VALUE
        value = word;
#endif
        if
        :: found
        :: else ->
            atomic {
                if
#ifdef NO_COMPARE
                :: true -> waiting = true
#else
                :: word == value -> waiting = true
                :: else
#endif
                fi
            };
            !waiting
        fi;
        sleepers--
    od
}

/* ---- SYNC ARM */
bool event;

active proctype finisher() {
    store(MARK);
#ifndef RELAXED_MARK
    ordered(MARK);
#endif
    if
    :: mem[ARMED] -> event = true
    :: else
    fi
}

active proctype poller() {
    if
    :: mem[MARK] -> goto seen
    :: else
    fi;
    store(ARMED);
#ifndef RELAXED_ARM
    ordered(ARMED);
#endif
#ifndef NO_SECOND_LOOK
    if
    :: mem[MARK] -> goto seen
    :: else
    fi;
#endif
    event; /* epoll */
seen:
    skip
}

/* ---- SYNC CHAIN: windows 1 and 2, stale. Nobody is inside the second; the worker is the last inside the first. */
bool closed_second;
bool retired_second;
byte retirements;

inline retire_second() {
#ifdef RETIRE_TWICE
    if
    :: closed_second && !retired_second -> retired_second = true; retirements++
    :: else
    fi
#else
    atomic {
        if
        :: closed_second && !retired_second -> retired_second = true; retirements++
        :: else
        fi
    }
#endif
}

active proctype leaver() {
    store(HEAD); /* the first is retired */
#ifndef RELAXED_RETIRED
    ordered(HEAD);
#endif
    retire_second()
}

active proctype closer() {
    bool head;
#ifdef CLOSE_LATE
    head = mem[HEAD];
    closed_second = true;
#else
    closed_second = true;
    head = mem[HEAD];
#endif
    if
    :: head -> retire_second()
    :: else
    fi
}

active proctype watcher() {
    retired_second; /* or it never ends */
    assert(retirements <= 1)
}
