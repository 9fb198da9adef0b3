/* SPDX-License-Identifier: Apache-2.0
 *
 * Queue epoch, windows, block bits, progress and retirement on a device whose workers are threads: preempting and
 * resuming a request of KERNELS kernel instances with BLOCKS blocks each, at any instant, again and again.
 *
 * A worker enters a window through its gate (a word with a closed flag and the number of workers inside), claims blocks
 * from one word (kernel, next block), runs those whose bit is not set, abandons a block when the epoch went stale, sets
 * the bit and counts; whoever completes a kernel publishes it and opens the next one. A closed gate that the last worker
 * leaves is the retirement mark. The engine preempts by changing the epoch and closing the gate, waits for the mark,
 * launches the first unfinished kernel again, and reuses the context for another request after the last mark.
 *
 * Memory: words changed by read-modify-write are seen at once; the blocks' outputs are ordinary stores, which other
 * workers see only after a release by their writer (bit, count) and an acquire of what that published.
 *
 * Checked: no finished block runs again; a block runs only when every block of the kernel before it is done and visible;
 * nothing runs in a window after its mark, or in a context that is being reused; every request finishes.
 *
 * Mutations (each must fail):
 *   NO_BIT_CHECK      a resumed kernel runs finished blocks again
 *   BIT_FIRST         the bit is published before the block's output
 *   EARLY_MARK        retired as soon as the gate is closed, with workers inside
 *   REUSE_ON_PROGRESS the context is reused when the last kernel is done, before the mark
 *   COUNT_CLAIMS      a kernel counts as done when its last block was claimed
 *   SPLIT_COUNT       counting and comparing are two steps: two workers complete one kernel
 *   STALE_CLAIM       the claim word of the window before is kept
 *   ENTER_CLOSED      a worker enters without looking at the closed flag
 *   SPLIT_ENTER       looking at the flag and counting in are two steps
 *   SKIP_KERNEL       resuming starts after the first unfinished kernel
 *   NO_EPOCH_CHECK    a worker begins more than one block after the epoch became stale
 */
#define WORKERS 2
#define KERNELS 2
#define BLOCKS 2
#define REQUESTS 2
#ifndef PREEMPTIONS
#define PREEMPTIONS 2
#endif

/* the window, one at a time on this queue */
bool closed = true;
byte inside;
byte window_epoch;
byte claim_kernel, claim_block;
bool mark = true; /* retired */
/* the queue */
byte epoch;
/* the context's record */
bool marked[KERNELS * BLOCKS];
byte count[KERNELS];
byte kernels_done;
/* what the blocks did */
bool output[KERNELS * BLOCKS];  /* visible to everybody */
bool finished[KERNELS * BLOCKS];
bool reusing;
bool over;

inline leave() {
    atomic {
        inside--;
        if
        :: closed && inside == 0 -> mark = true
        :: else
        fi
    }
}

#ifndef SPLIT_COUNT
#define add_one(k) atomic { count[k]++; last = (count[k] == BLOCKS) }
#else
#define add_one(k) count[k]++; last = (count[k] == BLOCKS)
#endif

proctype worker() {
    byte kernel, block, at;
    bool last;
    byte late; /* blocks begun in this window after its epoch became stale */
    do
    ::
#ifdef SPLIT_ENTER
        !closed || over;
        if :: over -> break :: else fi;
        inside++;
#else
#ifdef ENTER_CLOSED
        atomic { if :: over -> break :: else -> inside++ fi };
#else
        atomic { !closed || over; if :: over -> break :: else -> inside++ fi };
#endif
#endif
        do
        :: atomic {
               if
               :: claim_block < BLOCKS ->
                   kernel = claim_kernel; block = claim_block; claim_block++
               :: else -> /* exhausted: wait for the next kernel, or for the end */
                   kernel = claim_kernel; block = BLOCKS
               fi
           };
           if
           :: block == BLOCKS ->
               if
               :: closed -> break
               :: claim_block < BLOCKS -> skip
               fi
           :: else ->
               at = kernel * BLOCKS + block;
               if
#ifndef NO_BIT_CHECK
               :: marked[at] -> skip
#endif
               :: else ->
#ifndef NO_EPOCH_CHECK
                   if
                   :: epoch != window_epoch -> break /* a check point at the start of the block */
                   :: else
                   fi;
#endif
                   if
                   :: epoch != window_epoch -> assert(late == 0); late = 1 /* it became stale since the check */
                   :: else
                   fi;
                   assert(!mark && !reusing);
                   assert(!finished[at]);
                   if
                   :: kernel > 0 -> assert(output[(kernel - 1) * BLOCKS] && output[(kernel - 1) * BLOCKS + 1])
                   :: else
                   fi;
                   if
                   :: epoch != window_epoch -> break /* a check point inside: abandoned, nothing counts */
                   :: true -> skip
                   fi;
                   assert(!mark && !reusing);
#ifdef BIT_FIRST
                   marked[at] = true;
                   add_one(kernel);
#else
                   output[at] = true; /* its stores, released by the bit */
                   atomic { assert(!marked[at]); marked[at] = true; finished[at] = true };
                   add_one(kernel);
#endif
                   if
#ifdef COUNT_CLAIMS
                   :: block == BLOCKS - 1 ->
#else
                   :: last ->
#endif
                       kernels_done = kernel + 1;
                       if
                       :: kernel + 1 < KERNELS -> d_step { claim_kernel = kernel + 1; claim_block = 0 }
                       :: else -> closed = true
                       fi
                   :: else
                   fi;
#ifdef BIT_FIRST
                   output[at] = true;
                   finished[at] = true
#endif
               fi
           fi
        od;
        late = 0; last = false;
        leave()
    od
}

active proctype engine() {
    byte request, preempted, k;
    run worker();
    run worker();
    for (request : 1 .. REQUESTS) {
        do
        :: kernels_done < KERNELS -> /* launch from the first unfinished kernel */
            atomic {
                assert(mark && inside == 0);
                window_epoch = epoch;
                mark = false;
#ifndef STALE_CLAIM
#ifdef SKIP_KERNEL
                claim_kernel = (kernels_done + 1 < KERNELS -> kernels_done + 1 : kernels_done);
#else
                claim_kernel = kernels_done;
#endif
                claim_block = 0;
#endif
                closed = false
            };
            if
            :: preempted < PREEMPTIONS -> /* a real-time request arrives, at any instant */
                epoch++;
                preempted++;
                atomic {
                    closed = true;
#ifdef EARLY_MARK
                    mark = true
#else
                    if :: inside == 0 -> mark = true :: else fi
#endif
                }
            :: true
            fi;
#ifdef REUSE_ON_PROGRESS
            mark || kernels_done == KERNELS
#else
            mark /* nothing is reused, resumed or completed before this */
#endif
        :: else -> break
        od;
        for (k : 0 .. KERNELS * BLOCKS - 1) { assert(finished[k]) }
        /* the answer is sent and the context reused */
        reusing = true;
        d_step {
            for (k : 0 .. KERNELS * BLOCKS - 1) { marked[k] = false; output[k] = false; finished[k] = false }
            for (k : 0 .. KERNELS - 1) { count[k] = 0 }
            kernels_done = 0
        };
        reusing = false;
        preempted = 0
    }
    over = true
}
