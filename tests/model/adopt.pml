/* SPDX-License-Identifier: Apache-2.0
 *
 * Killing the daemon between any two of its stores to region D, and adoption by the next one.
 *
 * A killed process's stores all become visible, in program order, so memory is sequentially consistent here. One step of
 * the daemon is one store. The client resubmits a slot as soon as its completion is there.
 *
 * Checked: every request that the client submitted completes exactly once, with the right generation and in a final
 * state, however often the daemon died; no rule-abiding client is quarantined; an executed answer is published at most
 * once (execution itself may repeat: at least once).
 *
 * Mutations (run.py shows that each fails):
 *   SPLIT_ACCEPT    generation and state ACCEPTED are two stores instead of one
 *   EARLY_HEAD      sq_head before ACCEPTED
 *   EARLY_TAIL      cq_tail before the final state
 *   LATE_INDEX      cq_index after the final state
 *   NO_SKIP         adoption takes the entry again that was accepted before sq_head moved
 *   NO_POST         adoption does not publish a completion whose cq_tail is missing
 *   NO_REPLAY       adoption forgets requests that were running
 */
#define SLOTS 2
#define ENTRIES 4
#define PER_SLOT 3 /* requests for each slot */
#ifndef KILLS
#define KILLS 2
#endif

mtype = { FREE, ACCEPTED, RUNNING, DONE };

/* region C */
byte sq_slot[ENTRIES], sq_generation[ENTRIES], sq_tail, cq_head;
/* region D */
byte sq_head, cq_tail;
byte cq_slot[ENTRIES], cq_generation[ENTRIES];
mtype state[SLOTS] = FREE;
byte generation[SLOTS], copied[SLOTS], cq_index[SLOTS];

byte kills;
bool killed, finished;

inline submit(number) {
    submitted[number]++;
    sq_slot[sq_tail % ENTRIES] = number;
    sq_generation[sq_tail % ENTRIES] = submitted[number];
    flying[number] = true;
    sq_tail++
}

active proctype client() {
    byte slot, submitted[SLOTS], completed[SLOTS], entry;
    bool flying[SLOTS];
    do
    :: atomic { !flying[0] && submitted[0] < PER_SLOT -> submit(0) }
    :: atomic { !flying[1] && submitted[1] < PER_SLOT -> submit(1) }
    :: atomic { cq_tail != cq_head ->
                entry = cq_head % ENTRIES;
                slot = cq_slot[entry];
                assert(flying[slot] && cq_generation[entry] == submitted[slot]); /* exactly once, in order */
                assert(state[slot] == DONE && generation[slot] == submitted[slot]);
                flying[slot] = false;
                completed[slot]++;
                cq_head++;
                entry = 0; slot = 0 }
    :: completed[0] == PER_SLOT && completed[1] == PER_SLOT -> break
    od;
    finished = true;
    assert(cq_tail == cq_head && sq_head == sq_tail)
}

inline accept(slot, number) {
    assert(state[slot] == FREE || state[slot] == DONE);
    assert(number == generation[slot] + 1);                           /* or quarantine */
    assert(generation[slot] == 0 || cq_index[slot] < cq_head);        /* its last completion was consumed */
    copied[slot] = number;
#ifdef EARLY_HEAD
    sq_head++;
#endif
#ifdef SPLIT_ACCEPT
    generation[slot] = number;
    state[slot] = ACCEPTED;
#else
    d_step { generation[slot] = number; state[slot] = ACCEPTED }     /* one aligned 8-byte store */
#endif
#ifndef EARLY_HEAD
    sq_head++
#endif
}

inline complete(slot) {
    cq_slot[cq_tail % ENTRIES] = slot;
    cq_generation[cq_tail % ENTRIES] = copied[slot];
#ifndef LATE_INDEX
    cq_index[slot] = cq_tail;
#endif
#ifdef EARLY_TAIL
    cq_tail++;
#endif
    state[slot] = DONE;
#ifdef LATE_INDEX
    cq_index[slot] = cq_tail;
#endif
#ifndef EARLY_TAIL
    cq_tail++
#endif
}

active proctype daemon() {
    byte slot, number;
    bool ready[SLOTS];
life:
    {
        /* adoption: everything the predecessor knew and did not write down is gone */
        for (slot : 0 .. SLOTS - 1) {
            if
#ifndef NO_REPLAY
            :: state[slot] == ACCEPTED || state[slot] == RUNNING -> ready[slot] = true
#endif
#ifndef NO_POST
            :: state[slot] == DONE && cq_index[slot] >= cq_tail ->
                assert(cq_index[slot] == cq_tail);
                cq_tail++
#endif
            :: else
            fi
        }
#ifndef NO_SKIP
        if
        :: sq_head != sq_tail && generation[sq_slot[sq_head % ENTRIES]] == sq_generation[sq_head % ENTRIES] ->
            sq_head++
        :: else
        fi;
#endif
        do
        :: sq_head != sq_tail ->
            slot = sq_slot[sq_head % ENTRIES];
            number = sq_generation[sq_head % ENTRIES];
            accept(slot, number);
            ready[slot] = true
        :: atomic { ready[0] -> slot = 0; ready[0] = false };
            state[slot] = RUNNING;
            complete(slot)
        :: atomic { ready[1] -> slot = 1; ready[1] = false };
            state[slot] = RUNNING;
            complete(slot)
        :: finished -> break
        od
    } unless {
        d_step { killed -> killed = false; ready[0] = false; ready[1] = false; slot = 0; number = 0 };
        goto life
    }
}

active proctype killer() {
    do
    :: atomic { kills < KILLS && !finished -> kills++; killed = true }; (!killed || finished)
    :: kills == KILLS || finished -> break
    od
}
