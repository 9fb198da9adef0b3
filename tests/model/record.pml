/* SPDX-License-Identifier: Apache-2.0
 *
 * The progress record within windows (cpu_context.hpp), and how workers go from kernel to kernel (cpu_worker.cpp). The
 * gate, the epoch's writing and retirement are those of epoch.pml and taken as given: a window is over when its gate is closed
 * and nobody is inside, and what was done in it is known to whoever comes after.
 *
 * Bits of blocks lie in words (here of two bits). A finished block adds its bit, and sees by that whether its word is full;
 * where a kernel has several words, whoever fills one counts it, and who counts the last one completes the kernel. It then
 * stores the claim word of the next kernel, either as untouched or with the first block taken for itself, if it may go on.
 * Only the instance that a window begins with can have finished blocks; no other one's bits are looked at.
 *
 * Memory: what a block writes is plain data, which another thread may use only if it happened before. `known[w]` is what
 * happened before worker w's next step; a release hands it on by the word that it changes, an acquire takes it from there.
 *
 * Checked: no finished block runs again, and none runs twice at once; a block begins when every block of the kernel before is
 * done and known; a kernel is done when all its blocks are; every request finishes.
 *
 * Mutations (each must fail):
 *   RELAXED_BIT    setting a bit orders nothing
 *   RELAXED_WORDS  counting a word orders nothing
 *   RELAXED_CLAIM  the next kernel's claim word is taken without acquiring it
 *   SPLIT_BIT      setting the bit and looking whether the word is full are two steps
 *   SPLIT_WORDS    counting the word and looking whether it was the last are two steps
 *   ONE_WORD       the first full word completes the kernel
 *   FIRST_LEFT     the first block is begun, and the claim word offers it to others
 *   FIRST_DROPPED  the claim word says that the first block is taken by one that does not go on
 *   NO_BIT_CHECK   finished blocks of a kernel that is begun again are not passed over
 *   OLD_FIRST      a window looks at the bits of the instance that the window before it began with
 */
#define WORKERS 2
#define KERNELS 2
#define BLOCKS(k) (3 - (k)) /* two words, the second not full; one word */
#define WORDS(k) (2 - (k))
#define WORD(k, b) ((k) * 2 + (b) / 2)
#ifndef PREEMPTIONS
#define PREEMPTIONS 2
#endif
#define OUTPUT(k, b) (1 << ((k) * 3 + (b)))
#define ALL_OUTPUTS(k) (((k) == 0 -> 7 : 24))

/* the window */
bool closed = true, stale;
byte inside, first, claim_kernel, claim_next = 3;
/* the record */
byte bits[4], full_words[KERNELS], kernels_done;
/* what happened, and who knows */
bool finished[KERNELS * 3], running[KERNELS * 3];
byte known[WORKERS], by_window, by_claim, by_word[4], by_words[KERNELS];
bool over;

#ifdef SPLIT_BIT
#define set_bit bits[WORD(k, b)] = bits[WORD(k, b)] | (1 << (b % 2))
#else
#define set_bit skip
#endif
#ifdef SPLIT_WORDS
#define count_word full_words[k]++
#else
#define count_word skip
#endif

proctype worker(byte w) {
    byte k, b;
    bool last;
    do
    :: atomic {
           over || (!closed && claim_next < BLOCKS(claim_kernel));
           if :: over -> break :: else -> inside++; known[w] = by_window fi
       };
       do
       :: stale -> closed = true; break
       :: atomic { /* claim */
              !stale;
              if
              :: claim_next < BLOCKS(claim_kernel) ->
                  k = claim_kernel; b = claim_next; claim_next++;
#ifndef RELAXED_CLAIM
                  known[w] = known[w] | by_claim
#endif
              :: else -> break
              fi
          };
          assert(k == first || (bits[WORD(k, b)] & (1 << (b % 2))) == 0);
          if
#ifndef NO_BIT_CHECK
          :: k == first && (bits[WORD(k, b)] & (1 << (b % 2)))
#endif
          :: else ->
begin:        atomic {
                  assert(!finished[k * 3 + b] && !running[k * 3 + b]);
                  assert(k == 0 || (known[w] & ALL_OUTPUTS(0)) == ALL_OUTPUTS(0));
                  running[k * 3 + b] = true
              };
              atomic {
                  running[k * 3 + b] = false;
                  if
                  :: stale -> closed = true; break /* a check point: abandoned */
                  :: true
                  fi;
                  finished[k * 3 + b] = true;
                  known[w] = known[w] | OUTPUT(k, b)
              };
              set_bit;
              d_step {
                  bits[WORD(k, b)] = bits[WORD(k, b)] | (1 << (b % 2));
#ifndef RELAXED_BIT
                  known[w] = known[w] | by_word[WORD(k, b)];
                  by_word[WORD(k, b)] = known[w];
#endif
                  last = (bits[WORD(k, b)] == (b == 2 -> 1 : 3))
              };
              if
              :: last ->
#ifdef ONE_WORD
                  skip
#else
                  count_word;
                  d_step {
#ifndef SPLIT_WORDS
                      full_words[k]++;
#endif
#ifndef RELAXED_WORDS
                      known[w] = known[w] | by_words[k];
                      by_words[k] = known[w];
#endif
                      last = (full_words[k] == WORDS(k))
                  }
#endif
              :: else
              fi;
              if
              :: last ->
                  last = false;
                  d_step {
                      assert(kernels_done == k);
                      assert((known[w] & ALL_OUTPUTS(k)) == ALL_OUTPUTS(k));
                      kernels_done = k + 1
                  };
                  if
                  :: k + 1 == KERNELS -> closed = true; break
                  :: k + 1 < KERNELS && !stale -> /* goes on */
                      d_step {
                          k++; b = 0;
                          claim_kernel = k;
#ifdef FIRST_LEFT
                          claim_next = 0;
#else
                          claim_next = 1;
#endif
                          by_claim = known[w]
                      };
                      goto begin
                  :: k + 1 < KERNELS -> /* stale, or busy with real-time work first */
                      d_step {
                          claim_kernel = k + 1;
#ifdef FIRST_DROPPED
                          claim_next = 1;
#else
                          claim_next = 0;
#endif
                          by_claim = known[w]
                      };
                      break
                  fi
              :: else
              fi
          fi
       od;
       atomic {
           by_window = by_window | known[w]; /* leaving, retirement and the next launch */
           inside--; k = 0; b = 0; last = false; known[w] = 0
       }
    od
}

active proctype engine() {
    byte preempted;
    run worker(0);
    run worker(1);
    do
    :: kernels_done < KERNELS ->
        atomic {
            assert(inside == 0);
            stale = false;
#ifndef OLD_FIRST
            first = kernels_done;
#endif
            claim_kernel = kernels_done; claim_next = 0;
            by_claim = 0;
            closed = false
        };
        if
        :: preempted < PREEMPTIONS -> stale = true; closed = true; preempted++
        :: true
        fi;
        closed && inside == 0 /* the mark */
    :: else -> break
    od;
    assert(finished[0] && finished[1] && finished[2] && finished[3] && finished[4]);
    over = true
}
