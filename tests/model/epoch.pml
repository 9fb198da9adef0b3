/* SPDX-License-Identifier: Apache-2.0
 *
 * Queue epoch, windows, block bits, progress and retirement on a device whose workers are threads (cpu_queue.hpp,
 * cpu_worker.cpp, cpu_context.hpp, cpu_device.cpp): one queue, of which a window runs while those before it still retire.
 *
 * A request has two kernels, of two blocks and of one; with ONE_ORDER a second one, of a single kernel, is beside it. The
 * engine launches a request as one window or as two behind each other, up to SLOTS windows on the queue, so that slots are
 * used again at once. It preempts at any instant and launches the other request under the new epoch without waiting; a
 * preempted one is launched again after its own last mark, and its context is reused after that.
 *
 * Steps are the code's atomic operations, one each: a worker reads the mark, looks at the gate of the next window, enters
 * by compare-and-swap, looks at the epoch, claims a block, looks at its bit where the window began, runs it,
 * sets the bit, which counts, publishes the kernel, opens the next one and takes its first block, or closes the gate, and leaves; who leaves a closed gate last retires: load, compare, swap,
 * store the mark, look at the next gate. The engine closes stale gates one by one and then retires in the same way.
 *
 * The epoch is read relaxed, and yet who enters the window behind an abandoned one must see that it is stale, or it would
 * run kernels whose inputs are not there (NO_EPOCH_CHECK): whoever retired the window before saw, or wrote, the new epoch,
 * and reads of one word never go back behind what happened before them. So here the epoch is one word that all see.
 *
 * Memory: atomic words have one order that all see. Everything else (a window's fields, what a block writes, what anybody
 * last touched of a context, and bits that nobody is ordered behind) is plain data, and every access to it must happen
 * after the ones that it could conflict with. `known[t]` is what happened before thread t's next step; a release copies it
 * to the word, an acquire takes it from there, a relaxed store drops it. So an ordering that is missing is a race that is
 * found in every execution that is explored, whatever the processor.
 *
 * Explored twice: as it is, one request after the other in one context; and with -DONE_ORDER, where every access is in one
 * order and a second request is in flight beside the first on the same queue.
 *
 * Checked: no finished block runs again; a block begins when every block of the kernel before it is done and known; nobody
 * is inside a window that is retired, and nothing of a context is touched while the engine reuses it; marks are stored
 * once and in order; no plain access races; every request finishes (invalid end states).
 *
 * Mutations: each -D that an #ifdef below names makes the check fail. SPARE_ ones are orderings that others on the same path
 * give too (the code keeps them, so that each end of a pair can be read by itself): the check still holds without any of
 * them, and without all of them.
 */
#define WORKERS 2
#define KERNELS 2
#define BLOCKS(k) (2 - (k))
#define CONTEXTS 2
#ifdef ONE_ORDER
#define BESIDE 1
#else
#define BESIDE 0
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#define REQUESTS 2
#ifndef PREEMPTIONS
#define PREEMPTIONS 1
#endif

/* Plain data, one bit each. */
#define DATA(c, k, b) (1 << ((c) * 4 + (k) * 2 + (b)))  /* what a block reads and writes, and its bit */
#define FIELDS(s) (1 << (8 + (s)))                      /* of a window slot */
#define SEEN(s, w) (1 << (10 + (s) * 2 + (w)))          /* the last read of them by a worker */
#define ALL_DATA(c) (15 << ((c) * 4))
#define ALL_SEEN(s) (3 << (10 + (s) * 2))
int known[WORKERS + 1] = 16383; /* the engine is the last one */
#define ENGINE WORKERS

/* Words, each with what it hands on: gate, claim word, mark, counts, kernels done. */
#define GATE(s) (s)
#define CLAIM(s) (2 + (s))
#define RETIRED 4
#define COUNT(c, k) (5 + (c) * 2 + (k))
#define DONE(c) (9 + (c))
#define WORDS 11
int gives[WORDS];
#ifdef ONE_ORDER
#define acquire(t, word) skip
#define release_store(t, word) skip
#define release_add(t, word) skip
#define relaxed_store(word) skip
#define happens(t, what) skip
#define forget(t) skip
#else
#define forget(t) known[t] = 0
#define acquire(t, word) known[t] = known[t] | gives[word]
#define release_store(t, word) gives[word] = known[t]
#define release_add(t, word) gives[word] = gives[word] | known[t] /* a read-modify-write keeps what was there */
#define relaxed_store(word) gives[word] = 0
/* A plain access that later ones must know: nobody else knows of it now. */
inline happens(t, what) {
    d_step {
        for (item : 0 .. WORDS - 1) { gives[item] = gives[item] & ~(what) }
        for (item : 0 .. WORKERS) { known[item] = known[item] & ~(what) }
        item = 0;
        known[t] = known[t] | (what)
    }
}
#endif

/* the queue */
byte epoch, retired;
/* its windows: gate, claim word, fields */
byte mark[SLOTS], inside[SLOTS], claim_kernel[SLOTS], claim_next[SLOTS];
bool closed[SLOTS] = true, marked_retired[SLOTS] = true;
byte context[SLOTS], first_kernel[SLOTS], last_kernel[SLOTS], window_epoch[SLOTS];
/* the contexts' records */
bool bit_set[CONTEXTS * KERNELS * 2], finished[CONTEXTS * KERNELS * 2];
byte count[CONTEXTS * KERNELS], kernels_done[CONTEXTS];
byte running[CONTEXTS * KERNELS * 2];
bool over;
byte retiring_ends; /* marks stored */

#ifdef NO_RETIRED_FLAG
#define RETIRED_FLAG(s) true
#else
#define RETIRED_FLAG(s) !marked_retired[s]
#endif
#ifdef EARLY_MARK
#define EMPTY(s) true
#else
#define EMPTY(s) (inside[s] == 0)
#endif
#define CAN_RETIRE(m) (mark[(m) % SLOTS] == (m) && closed[(m) % SLOTS] && RETIRED_FLAG((m) % SLOTS) && EMPTY((m) % SLOTS))
#ifdef NO_MARK
#define SAME_MARK(s, m) true
#else
#define SAME_MARK(s, m) (mark[s] == (m))
#endif
#ifdef ENTER_CLOSED
#define OPEN(s) true
#else
#define OPEN(s) (!closed[s])
#endif

/* CpuQueue::retire, by thread t: every closed, empty window from the head on. */
inline retire_queue(t) {
    d_step {
        at = retired + 1;
#ifndef RELAXED_HEAD
        acquire(t, RETIRED)
#endif
    };
    do
    ::
#ifdef NO_CAS
       /* compare, then store */
       if
       :: CAN_RETIRE(at) -> skip
       :: else -> break
       fi;
       d_step { marked_retired[at % SLOTS] = true; acquire(t, GATE(at % SLOTS)) };
#else
       if /* load */
       :: CAN_RETIRE(at) -> skip
       :: else -> break
       fi;
       d_step { /* compare and swap: between the two, a gate that is closed and empty changes only by this */
           if
           :: CAN_RETIRE(at) ->
              swap = true;
              marked_retired[at % SLOTS] = true;
#ifndef RELAXED_RETIRE
              acquire(t, GATE(at % SLOTS));
#endif
              release_add(t, GATE(at % SLOTS))
           :: else -> swap = false
           fi
       };
       if
       :: !swap -> break
       :: else
       fi;
#endif
       d_step {
           assert(retired + 1 == at); /* stored once, in order */
           retired = at;
#ifdef RELAXED_MARK
           relaxed_store(RETIRED);
#else
           release_store(t, RETIRED);
#endif
           relaxed_store(CLAIM(at % SLOTS)); /* until the slot is used again nobody takes anything from these */
           relaxed_store(GATE(at % SLOTS));
           at++
       };
#ifdef NO_CHAIN
       break
#endif
    od;
    atomic { at = 0; swap = false }
}

#define HEAD_SLOT ((retired + 1) % SLOTS)
#define LEFT(s) (claim_next[s] < BLOCKS(claim_kernel[s]))
#ifdef ANY_WINDOW
#define CLAIMABLE(m) (mark[(m) % SLOTS] == (m) && !closed[(m) % SLOTS] && LEFT((m) % SLOTS))
#endif


proctype worker(byte w) {
    byte m, s, c, k, b, item, at;
    bool swap, last;
    do
    :: over -> break
    :: atomic { /* a hint: the mark, the gate and the claim word are read one after the other, entering decides */
           !over && mark[HEAD_SLOT] == retired + 1 && !closed[HEAD_SLOT] && LEFT(HEAD_SLOT) ->
           m = retired + 1;
#ifndef RELAXED_HEAD
           acquire(w, RETIRED);
#endif
           acquire(w, GATE(HEAD_SLOT));
           s = HEAD_SLOT
       };
#ifdef ANY_WINDOW
       if
       :: CLAIMABLE(m + 1) -> m = m + 1; s = m % SLOTS
       :: true
       fi;
#endif
       atomic {
           if
#ifdef SPLIT_ENTER
           :: mark[s] == m && !closed[s] -> skip
#else
           :: SAME_MARK(s, m) && OPEN(s) ->
              inside[s]++;
#ifndef SPARE_ENTER
              acquire(w, GATE(s));
#endif
#endif
           :: else -> goto idle
           fi;
#ifdef SPLIT_ENTER
       };
       atomic {
           inside[s]++; acquire(w, GATE(s));
#endif
           assert(!marked_retired[s]);
           assert(known[w] & FIELDS(s)); /* its fields are the ones that were launched */
           happens(w, SEEN(s, w));
           c = context[s]
       };
       do
       ::
#ifndef NO_EPOCH_CHECK
          if
          :: epoch != window_epoch[s] -> closed[s] = true; break
          :: else
          fi;
#endif
          atomic { /* claim */
              if
              :: LEFT(s) ->
                  k = claim_kernel[s]; b = claim_next[s]; claim_next[s]++;
#ifndef RELAXED_TAKE
                  acquire(w, CLAIM(s));
#endif
                  assert(k < last_kernel[s])
              :: else -> break
              fi
          };
          if
#ifndef NO_BIT_CHECK
          :: k == first_kernel[s] && bit_set[c * 4 + k * 2 + b] ->
              assert(known[w] & DATA(c, k, b)) /* or the load might not show it */
#endif
          :: else ->
run_it:
              skip;
              atomic { /* it begins: reads the kernel before, and writes */
                  assert(!finished[c * 4 + k * 2 + b] && running[c * 4 + k * 2 + b] == 0);
                  assert(!marked_retired[s]);
                  assert(known[w] & DATA(c, k, b)); /* who wrote here before */
                  assert(k == 0 || kernels_done[c] >= k);
                  assert(k == 0 || c == 1 || ((known[w] & DATA(c, 0, 0)) && (known[w] & DATA(c, 0, 1))));
                  running[c * 4 + k * 2 + b]++;
                  happens(w, DATA(c, k, b))
              };
#ifndef BIT_FIRST
              atomic {
                  running[c * 4 + k * 2 + b]--;
                  if
                  :: epoch != window_epoch[s] -> last = true /* a check point: abandoned, nothing counts */
                  :: true
                  fi;
                  assert(!marked_retired[s])
              };
              if
              :: last -> atomic { last = false; closed[s] = true }; break
              :: else
              fi;
#endif
#ifdef SPLIT_COUNT
              count[c * 2 + k]++;
#endif
              atomic { /* the bit, which is the count */
                  assert(!bit_set[c * 4 + k * 2 + b]);
                  bit_set[c * 4 + k * 2 + b] = true;
                  finished[c * 4 + k * 2 + b] = true;
#ifndef BIT_FIRST
                  happens(w, DATA(c, k, b));
#endif
#ifndef SPLIT_COUNT
                  count[c * 2 + k]++;
#endif
                  last = (count[c * 2 + k] == BLOCKS(k));
#ifdef COUNT_CLAIMS
                  last = (b == BLOCKS(k) - 1);
#endif
#ifndef RELAXED_BIT
                  acquire(w, COUNT(c, k));
                  release_add(w, COUNT(c, k));
#endif
                  if /* the kernel is done */
                  :: last ->
                      relaxed_store(COUNT(c, k)); /* nobody counts here again */
                      kernels_done[c] = k + 1;
#ifdef SPARE_DONE
                      relaxed_store(DONE(c))
#else
                      release_store(w, DONE(c))
#endif
                  :: else
                  fi
              };
#ifdef BIT_FIRST
              atomic { running[c * 4 + k * 2 + b]--; happens(w, DATA(c, k, b)) };
#endif
              if
              :: last && k + 1 == last_kernel[s] -> atomic { last = false; closed[s] = true }; break
              :: last && k + 1 < last_kernel[s] -> /* the next kernel; its first block is this worker's, if it may begin */
                  if
                  :: epoch != window_epoch[s] -> atomic { closed[s] = true; last = false }
                  :: else
                  fi;
                  atomic {
                      claim_kernel[s] = k + 1;
#ifdef NOT_TAKEN
                      claim_next[s] = 0;
#else
                      claim_next[s] = (last -> 1 : 0);
#endif
#ifdef RELAXED_ADVANCE
                      relaxed_store(CLAIM(s));
#else
                      release_store(w, CLAIM(s));
#endif
                      k++; b = 0
                  };
                  if
                  :: last -> last = false; goto run_it
                  :: else
                  fi
              :: else -> last = false
              fi
          fi
       od;
       atomic { /* leave */
           inside[s]--;
           swap = closed[s] && inside[s] == 0;
#ifndef SPARE_LEAVE
           acquire(w, GATE(s));
#endif
#ifndef RELAXED_LEAVE
           release_add(w, GATE(s))
#endif
       };
       if
       :: swap -> retire_queue(w)
       :: else
       fi;
idle:
       atomic {
           m = 0; s = 0; c = 0; k = 0; b = 0; swap = false;
           forget(w) /* what it knows it takes from the gate again */
       }
    od
}

active proctype engine() {
    byte launched, seen, epochs, requests, c, n, at, item, first;
    byte flight[SLOTS], in_flight[CONTEXTS], to[CONTEXTS]; /* kernels launched */
    bool active_request[CONTEXTS], stale[CONTEXTS], swap;
    run worker(0);
    run worker(1);
    d_step {
        active_request[0] = true; active_request[1] = BESIDE; requests = 1 + BESIDE;
        kernels_done[1] = 1; to[1] = 1 /* the second request has one kernel of one block */
    };
    do
    :: atomic { /* launch, of either request */
           launched - seen < SLOTS && active_request[0] && !stale[0] && to[0] < KERNELS -> c = 0
       };
       goto launch
    :: atomic { launched - seen < SLOTS && active_request[1] && !stale[1] && to[1] < KERNELS -> c = 1 };
launch:
       atomic {
           launched++;
           n = launched % SLOTS;
           assert((known[ENGINE] & ALL_SEEN(n)) == ALL_SEEN(n)); /* nobody reads the fields of the window before */
           assert(inside[n] == 0 && marked_retired[n]);
           flight[n] = c;
           in_flight[c]++;
           context[n] = c;
           window_epoch[n] = epoch
       };
       happens(ENGINE, FIELDS(n));
       atomic {
           first = to[c];
           if
           :: kernels_done[c] > first -> first = kernels_done[c]
           :: else
           fi;
#ifndef SPARE_DONE
           acquire(ENGINE, DONE(c));
#endif
#ifdef SKIP_KERNEL
           if
           :: first + 1 < KERNELS -> first++
           :: else
           fi;
#endif
           if
           :: to[c] + 1 < KERNELS -> last_kernel[n] = to[c] + 1 /* the rest in a window behind it */
           :: true -> last_kernel[n] = KERNELS
           fi;
           first_kernel[n] = first;
           to[c] = last_kernel[n]
       };
       if
       :: first < last_kernel[n] ->
#ifndef STALE_CLAIM
           d_step { claim_kernel[n] = first; claim_next[n] = 0; relaxed_store(CLAIM(n)) };
#endif
           d_step {
               mark[n] = launched; closed[n] = false; marked_retired[n] = false;
#ifdef RELAXED_OPEN
               relaxed_store(GATE(n))
#else
               release_store(ENGINE, GATE(n))
#endif
           }
       :: else -> /* nothing to run: only retires in its turn */
           d_step { mark[n] = launched; closed[n] = true; marked_retired[n] = false; release_store(ENGINE, GATE(n)) };
           retire_queue(ENGINE)
       fi;
       d_step { first = 0; n = 0; c = 0 }

    :: epochs < PREEMPTIONS && launched != seen -> /* preempt */
       d_step { epochs++; epoch++ };
       atomic {
           n = retired + 1;
#ifndef RELAXED_HEAD
           acquire(ENGINE, RETIRED)
#endif
       };
       do
       :: n <= launched -> atomic { closed[n % SLOTS] = true; n++ } /* one that retired meanwhile was closed before */
       :: else -> break
       od;
#ifndef NO_ENGINE_RETIRE
       retire_queue(ENGINE);
#endif
       atomic { stale[0] = in_flight[0] != 0; stale[1] = in_flight[1] != 0; n = 0 }

#ifdef REUSE_ON_PROGRESS
    :: atomic { active_request[0] && kernels_done[0] == KERNELS -> to[0] = KERNELS; in_flight[0] = 0; c = 0 };
       goto complete
#endif
    :: atomic { /* a mark that was not looked at */
           retired != seen ->
           seen++;
#ifndef RELAXED_HEAD
           acquire(ENGINE, RETIRED);
#endif
           c = flight[seen % SLOTS];
           in_flight[c]--
       };
       if
       :: in_flight[c] == 0 ->
           d_step {
               stale[c] = false;
               to[c] = kernels_done[c];
#ifndef SPARE_DONE
               acquire(ENGINE, DONE(c))
#endif
           };
           if
           :: to[c] == KERNELS ->
complete:
               skip;
               d_step { /* the answer is sent, and the context cleared for the next one */
                   assert(finished[c * 4 + 2] && (c == 1 || (finished[c * 4] && finished[c * 4 + 1])));
                   assert((known[ENGINE] & ALL_DATA(c)) == ALL_DATA(c));
                   for (n : 0 .. 3) {
                       bit_set[c * 4 + n] = false;
                       finished[c * 4 + n] = false;
                       assert(running[c * 4 + n] == 0)
                   }
                   n = 0;
                   count[c * 2] = 0; count[c * 2 + 1] = 0;
                   kernels_done[c] = c; to[c] = c;
                   relaxed_store(COUNT(c, 0)); relaxed_store(COUNT(c, 1)); relaxed_store(DONE(c))
               };
               happens(ENGINE, ALL_DATA(c));
               d_step {
                   if
                   :: requests < REQUESTS -> requests++
                   :: else -> active_request[c] = false
                   fi
               }
           :: else
           fi
       :: else
       fi;
       c = 0
    :: !active_request[0] && !active_request[1] && launched == seen -> break
    od;
    over = true
}
