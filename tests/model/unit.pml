/* SPDX-License-Identifier: Apache-2.0
 *
 * A unit: a kernel instance that is not restorable, here one whose blocks each update a cell of memory in place. It takes
 * effect whole or not at all. Windows, gate, epoch and retirement are those of epoch.pml and are taken as given: a window
 * is over when its gate is closed and nobody is inside.
 *
 * Before the first block of the unit begins, its cells are saved, in PIECES that workers claim like blocks. Go: whoever
 * counts the last piece opens the claim word for the blocks, and the unit counts as torn from then on, since a block may
 * be abandoned in the middle of its update. A window that begins with a torn unit first puts the cells back, in pieces
 * again, forgets which blocks were finished, and lets them begin anew. In a window that lets no block be abandoned (plain,
 * shielded, or whose policy finishes blocks) nothing is saved, and finished blocks stand: if windows after it do abandon
 * blocks, they must not for this unit.
 *
 * Checked: when the unit is done each cell was updated exactly once; no block runs beside a copy; a block's update is
 * never made of a half-made one; every request finishes.
 *
 * Mutations (each must fail):
 *   NO_SNAPSHOT    the blocks begin at once, as those of a restorable instance
 *   SAVE_AGAIN     a torn unit is saved, not put back
 *   KEEP_BITS      cells are put back, but blocks that had finished are not run again
 *   KEEP_COUNT     bits are forgotten, but the count of finished blocks is not
 *   FIRST_PIECE    the blocks begin when the first piece is copied
 *   SPLIT_PIECES   counting a piece and comparing are two steps: two workers open the blocks
 *   KEEP_COPIED    the pieces of an interrupted copy count in the next one
 *   TORN_NEVER     opening the blocks does not mark the unit as torn
 *   SAVE_HALF      a unit of which blocks stand is saved and may then be abandoned
 */
#define WORKERS 2
#define BLOCKS 2
#define PIECES 2
#define REQUESTS 2
#ifndef PREEMPTIONS
#define PREEMPTIONS 3
#endif
#define HALF 9

/* the window */
bool closed = true, stale, to_end;
byte inside;
/* the claim word: the next piece or block, and which of the two they are */
bool copies;
byte next = BLOCKS;
/* the context's record */
bool torn, marked[BLOCKS], done;
byte count, copied;
byte cell[BLOCKS], saved[BLOCKS];
/* what runs right now */
byte copying, running;
bool over;

#ifndef SPLIT_PIECES
#define count_piece atomic { copied++; last = (copied == PIECES) }
#else
#define count_piece copied++; last = (copied == PIECES)
#endif

proctype worker() {
    byte at, value, k;
    bool piece, last, abandoned;
    do
    :: atomic { !closed || over; if :: over -> break :: else -> inside++ fi };
       abandoned = false;
       do
       :: stale && !abandoned -> closed = true; break /* looked before each claim */
       :: atomic {
              closed || next < (copies -> PIECES : BLOCKS);
              if
              :: next < (copies -> PIECES : BLOCKS) -> at = next; piece = copies; next++
              :: else -> break
              fi
          };
          if
          :: piece ->
              copying++;
              assert(running == 0);
#ifdef SAVE_AGAIN
              saved[at] = cell[at];
#else
              if
              :: torn -> cell[at] = saved[at]
              :: else -> saved[at] = cell[at]
              fi;
#endif
              copying--;
#ifdef FIRST_PIECE
              last = (at == 0);
#else
              count_piece;
#endif
              if
              :: last ->
                  copied = 0;
                  if
                  :: torn ->
                      k = 0;
                      do
#ifndef KEEP_BITS
                      :: k < BLOCKS -> marked[k] = false; k++
#else
                      :: k < BLOCKS -> k++
#endif
                      :: else -> break
                      od;
#ifndef KEEP_COUNT
                      count = 0
#endif
                  :: else
                  fi;
#ifndef TORN_NEVER
                  torn = !to_end;
#endif
                  d_step { copies = false; next = 0 } /* go */
              :: else
              fi
          :: else ->
              if
              :: marked[at]
              :: else ->
                  running++;
                  assert(copying == 0);
                  value = cell[at];
                  assert(value != HALF);
                  cell[at] = HALF; /* in the middle of its update */
                  if
                  :: !to_end && stale -> abandoned = true /* a check point */
                  :: true
                  fi;
                  if
                  :: abandoned -> running--; closed = true; break
                  :: else
                  fi;
                  cell[at] = value + 1;
                  running--;
                  marked[at] = true;
                  atomic { count++; last = (count == BLOCKS) };
                  assert(count <= BLOCKS);
                  if
                  :: last -> done = true; closed = true
                  :: else
                  fi
              fi
          fi
       od;
       last = false;
       inside--
    od
}

active proctype engine() {
    byte request, preempted, k;
    run worker();
    run worker();
    for (request : 1 .. REQUESTS) {
        do
        :: !done ->
            assert(inside == 0 && copying == 0 && running == 0);
            if
            :: to_end = true
            :: to_end = false
            fi;
#ifndef KEEP_COPIED
            copied = 0;
#endif
#ifndef SAVE_HALF
            if
            :: count != 0 && !torn -> to_end = true
            :: else
            fi;
#endif
            atomic {
                stale = false;
#ifdef NO_SNAPSHOT
                copies = false;
#else
                copies = torn || !to_end;
#endif
                next = 0;
                closed = false
            };
            if
            :: preempted < PREEMPTIONS -> stale = true; closed = true; preempted++
            :: true
            fi;
            closed && inside == 0 /* the mark */
        :: else -> break
        od;
        for (k : 0 .. BLOCKS - 1) { assert(cell[k] == 1) }
        preempted = 0; /* the next request takes the context */
        d_step {
            count = 0;
            done = false;
            torn = false;
            for (k : 0 .. BLOCKS - 1) { marked[k] = false; cell[k] = 0 }
        }
    }
    over = true
}
