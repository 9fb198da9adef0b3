/* SPDX-License-Identifier: Apache-2.0
 *
 * The rings of a session: submit, announce and the doorbell; completion, the futex and the session socket. Weak memory.
 *
 * Memory: every location has one writer. A store waits in that location's buffer until the flusher makes it visible, in
 * any order between locations, so a later store may become visible first and a load may overtake an earlier store. A
 * release store waits until the writer's other stores are visible, a fence until all of them are. Loads run in program
 * order except where a mutation moves one forward. This is weaker than x86 and, for these programs, as weak as ARM.
 *
 * Checked: no state in which both sides sleep (invalid end state), entries are read only when whole, every request
 * completes once and in order, a client that keeps the rules is never taken for one that breaks them; a daemon does not
 * sleep over an announcement; nothing that a client leaves unread in its socket stops the daemon.
 *
 * Each -D below removes one fence or one ordering; test_model.py shows that the check then fails.
 *   NO_SUBMIT_FENCE  NO_SLEEP_FENCE  NO_SLEEP_RECHECK  RELAXED_SQ_TAIL  EARLY_SQE_READ
 *   NO_COMPLETE_FENCE  NO_WAIT_FENCE  RELAXED_CQ_TAIL  EARLY_CQE_READ  LATE_CQ_HEAD  NO_FUTEX_COMPARE
 *   NO_ANNOUNCE_FENCE  NO_ANNOUNCE_RECHECK  NO_SOCKET_FENCE  NO_SOCKET_RECHECK  LATE_DRAIN  BLOCKING_SEND
 */
#define REQUESTS 4
#define ANNOUNCEMENTS 2
#define SLOTS 2
#define ENTRIES 2 /* the real rings hold twice the slots; the tighter ring is the harder case */

/* client's locations */
#define SQ_TAIL 0
#define CQ_HEAD 1
#define CQ_WAITING 2
#define ANNOUNCE 3
#define SQE 4 /* ENTRIES of them */
/* daemon's locations */
#define CQ_TAIL 6
#define NEED_WAKEUP 7
#define CQE 8
#define LOCATIONS 10

/* bits of CQ_WAITING */
#define FUTEX 1
#define SOCKET 2

byte mem[LOCATIONS];
byte newest[LOCATIONS]; /* what the writer itself reads */
chan buffer[LOCATIONS] = [2] of { byte };

#define IDLE(at) empty(buffer[at])
#define CLIENT_VISIBLE (IDLE(0) && IDLE(1) && IDLE(2) && IDLE(3) && IDLE(4) && IDLE(5))
#define DAEMON_VISIBLE (IDLE(6) && IDLE(7) && IDLE(8) && IDLE(9))

inline store(at, v) { atomic { nfull(buffer[at]) -> buffer[at]!v; newest[at] = v } }

active proctype flusher() {
end:
    do
    :: atomic { nempty(buffer[0]) -> buffer[0]?mem[0] }
    :: atomic { nempty(buffer[1]) -> buffer[1]?mem[1] }
    :: atomic { nempty(buffer[2]) -> buffer[2]?mem[2] }
    :: atomic { nempty(buffer[3]) -> buffer[3]?mem[3] }
    :: atomic { nempty(buffer[4]) -> buffer[4]?mem[4] }
    :: atomic { nempty(buffer[5]) -> buffer[5]?mem[5] }
    :: atomic { nempty(buffer[6]) -> buffer[6]?mem[6] }
    :: atomic { nempty(buffer[7]) -> buffer[7]?mem[7] }
    :: atomic { nempty(buffer[8]) -> buffer[8]?mem[8] }
    :: atomic { nempty(buffer[9]) -> buffer[9]?mem[9] }
    od
}

bool rung;     /* the doorbell since epoll last returned: edge-triggered, never read */
bool asleep;   /* the client is on the futex's wait queue */
bool readable; /* the client's end of the session socket, which has room for one byte: the hardest case */
byte heard;    /* announcements */
bool sleeping; /* the daemon */
bool gone;     /* the client has done everything */

active proctype client() {
    byte submitted = 0, seen = 0, announced = 0, waiting = 0, tail, early;
    do
    :: submitted < REQUESTS && submitted - seen < SLOTS -> /* submit */
        store(SQE + submitted % ENTRIES, submitted + 1);
#ifndef RELAXED_SQ_TAIL
        CLIENT_VISIBLE; /* SYNC POINT sq-tail: release, with the daemon's acquire of sq_tail */
#endif
        submitted++;
        store(SQ_TAIL, submitted);
#ifndef NO_SUBMIT_FENCE
        CLIENT_VISIBLE; /* SYNC POINT need-wakeup: seq_cst fence, with the daemon's before it sleeps */
#endif
        if
        :: mem[NEED_WAKEUP] -> rung = true
        :: else
        fi
    :: announced < ANNOUNCEMENTS -> /* at any time: a client that does not submit afterwards is the harder case */
        announced++;
        store(ANNOUNCE, announced);
#ifndef NO_ANNOUNCE_FENCE
        CLIENT_VISIBLE; /* SYNC POINT need-wakeup: seq_cst fence, with the daemon's before it sleeps */
#endif
        if
        :: mem[NEED_WAKEUP] -> rung = true
        :: else
        fi
    :: submitted - seen > 0 -> /* wait */
        do
        ::
#ifdef EARLY_CQE_READ
            early = mem[CQE + seen % ENTRIES];
#endif
            tail = mem[CQ_TAIL]; /* SYNC POINT cq-tail: acquire */
            if
            :: tail != seen -> break
            :: else
            fi;
            if
            :: true -> /* on the futex */
                store(CQ_WAITING, waiting | FUTEX);
#ifndef NO_WAIT_FENCE
                CLIENT_VISIBLE; /* SYNC POINT cq-waiting: seq_cst fence, with the daemon's after cq_tail */
#endif
                atomic { /* futex_wait compares and joins the queue in one step */
                    if
#ifndef NO_FUTEX_COMPARE
                    :: mem[CQ_TAIL] != seen -> skip
#endif
                    :: else -> asleep = true
                    fi
                };
                !asleep;
                store(CQ_WAITING, waiting)
            :: true -> /* in an event loop: reef_arm, then poll */
#ifndef LATE_DRAIN
                readable = false; /* bytes of before; one that comes from here on is for the look below */
#endif
                waiting = SOCKET;
                store(CQ_WAITING, waiting); /* stays until the next completion is taken */
#ifndef NO_SOCKET_FENCE
                CLIENT_VISIBLE; /* SYNC POINT cq-waiting: seq_cst fence, with the daemon's after cq_tail */
#endif
                if
#ifndef NO_SOCKET_RECHECK
                :: mem[CQ_TAIL] != seen -> skip
#endif
                :: else ->
#ifdef LATE_DRAIN
                    readable = false;
#endif
                    readable /* poll */
                fi
            fi
        od;
#ifdef EARLY_CQE_READ
        assert(early == seen + 1);
#else
        assert(mem[CQE + seen % ENTRIES] == seen + 1); /* whole, in order, once */
#endif
        seen++;
#ifndef LATE_CQ_HEAD
        store(CQ_HEAD, seen); /* before the next sq_tail: the daemon may rely on it */
#else
        if
        :: submitted < REQUESTS -> /* the slot is submitted again before its completion is given back */
            store(SQE + submitted % ENTRIES, submitted + 1);
            CLIENT_VISIBLE;
            submitted++;
            store(SQ_TAIL, submitted);
            CLIENT_VISIBLE;
            if :: mem[NEED_WAKEUP] -> rung = true :: else fi
        :: else
        fi;
        store(CQ_HEAD, seen);
#endif
        if
        :: waiting != 0 ->
            waiting = 0;
            store(CQ_WAITING, 0)
        :: else
        fi
    :: seen == REQUESTS && announced == ANNOUNCEMENTS -> break
    od;
    gone = true
}

active proctype daemon() {
    byte head = 0, tail, entry, waiting;
    do
    :: true ->
        heard = mem[ANNOUNCE];
#ifdef EARLY_SQE_READ
        entry = mem[SQE + head % ENTRIES];
#endif
        tail = mem[SQ_TAIL]; /* SYNC POINT sq-tail: acquire */
        if
        :: tail != head ->
            assert(tail - head <= ENTRIES);
#ifndef EARLY_SQE_READ
            entry = mem[SQE + head % ENTRIES];
#endif
            assert(entry == head + 1); /* whole, in order, once */
            assert(head - mem[CQ_HEAD] < SLOTS); /* the slot's last completion was given back: else quarantine */
            head++;
            /* the answer */
            store(CQE + (head - 1) % ENTRIES, entry);
#ifndef RELAXED_CQ_TAIL
            DAEMON_VISIBLE; /* SYNC POINT cq-tail: release */
#endif
            store(CQ_TAIL, head);
#ifndef NO_COMPLETE_FENCE
            DAEMON_VISIBLE; /* SYNC POINT cq-waiting: seq_cst fence */
#endif
            waiting = mem[CQ_WAITING];
            if
            :: waiting & FUTEX -> asleep = false /* futex_wake */
            :: else
            fi;
            if
            :: waiting & SOCKET ->
#ifdef BLOCKING_SEND
                atomic { !readable -> readable = true }
#else
                readable = true /* MSG_DONTWAIT: where there is no room, there is something to read */
#endif
            :: else
            fi
        :: else -> /* nothing there: sleep */
            store(NEED_WAKEUP, 1);
#ifndef NO_SLEEP_FENCE
            DAEMON_VISIBLE; /* SYNC POINT need-wakeup: seq_cst fence */
#endif
#ifndef NO_SLEEP_RECHECK
            if
            :: mem[SQ_TAIL] != head -> skip
#ifndef NO_ANNOUNCE_RECHECK
            :: mem[ANNOUNCE] != heard -> skip
#endif
            :: else ->
                sleeping = true;
end_asleep:
                atomic { rung -> rung = false; sleeping = false } /* epoll_wait */
            fi;
#else
            sleeping = true;
end_asleep:
            atomic { rung -> rung = false; sleeping = false };
#endif
            store(NEED_WAKEUP, 0)
        fi
    od
}

/* Who announced and went on to fill a tensor rings no more until it submits. */
active proctype nothing_is_slept_over() {
end:
    atomic { gone && sleeping && !rung && CLIENT_VISIBLE -> assert(heard == ANNOUNCEMENTS) }
}
