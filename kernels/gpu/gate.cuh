// SPDX-License-Identifier: Apache-2.0
// Preemption of a running block, and the record from which a kernel goes on exactly where it was stopped.
//
// Gate<false> is the plain kernel: a barrier and nothing else. Gate<true> belongs to a best-effort launch. A block
//   - leaves at its first check() when the queue epoch is not its window's, or when its bit is already set;
//   - looks again at each check(), with a load issued at the check before, so that nobody waits for it;
//   - sets its bit once it has passed its last check point, because from there on it always finishes.
// All threads of a block leave together: thread 0 decides, and the decision travels through shared memory across a
// barrier that the loop has anyway. Two words take turns, so that the decision of one check is still readable while
// thread 0 writes the next.
//
// Progress is published by the kernel after: when block 0 of kernel k finds the epoch valid, no block of the window's
// earlier kernels can have found it stale (an epoch never returns, and kernels of a queue run in order), so they are all
// done. window_end does it for the last one. Counting finished blocks instead cost 2 us a kernel, all of it between the
// last store and the start of the next kernel.
//
// A kernel may start before the one before it has ended (programmatic dependent launch), so the epoch is first read in
// begin(), after dependency_wait(). Read earlier it could be valid while the kernel before is then abandoned.
// Bits and outputs need no order between them: bits are read by a later window only, launched after this one retired.
#pragma once

// In device memory, one for each execution context. The host writes the pointers when the context is made or moves to
// another queue (after its last window has retired); window_epoch is written in queue order before a window's kernels.
struct alignas(64) Context {
    const u32* queue_epoch;
    u32* progress;  // host-visible: number of kernels known to be done, counted from the first
    u32* bits;      // one bit a block; each kernel starts at a word of its own
    u32 window_epoch;
};

// Which kernel of which request a launch is.
struct Place {
    Context* context;
    u32 kernel;    // its index in the model
    u32 bit_word;  // where its bits start, in words
};

template <bool Preemptible> struct Gate;

template <> struct Gate<false> {
    REEF_MEMBER Gate(const Place&, u32*, u32) {}
    REEF_MEMBER void begin() {}
    // The barrier of the loop. True: leave now.
    REEF_MEMBER bool check() {
        barrier();
        return false;
    }
    REEF_MEMBER void finish() {}
};

template <> struct Gate<true> {
    u32* decision;  // two words of shared memory
    u32* bit_word;
    u32* progress;
    const u32* queue_epoch;
    u32 bit, window_epoch, seen, turn, kernel;
    bool done, first;

    // number: the block's, or the cluster's where a cluster is the unit of restoration.
    REEF_MEMBER Gate(const Place& place, u32* words, u32 number)
        : decision(words), bit_word(nullptr), progress(nullptr), queue_epoch(nullptr), bit(1u << number % 32), window_epoch(0),
          seen(0), turn(0), kernel(place.kernel), done(false), first(number == 0) {
        if (thread_index() == 0) {
            queue_epoch = place.context->queue_epoch;
            progress = place.context->progress;
            bit_word = place.context->bits + place.bit_word + number / 32;
            window_epoch = load_relaxed(&place.context->window_epoch);
            done = load_relaxed(bit_word) & bit;
        }
    }

    // Directly after dependency_wait().
    REEF_MEMBER void begin() {
        if (thread_index() == 0) seen = load_relaxed(queue_epoch);
    }

    REEF_MEMBER bool check() {
        if (thread_index() == 0) {
            bool valid = seen == window_epoch;
            decision[turn] = done || !valid;
            if (first && valid) publish(progress, kernel);
            first = false;
        }
        barrier();
        bool leave = decision[turn] != 0;
        turn ^= 1;
        if (thread_index() == 0 && !leave) seen = load_relaxed(queue_epoch);
        return leave;
    }

    // After the block's last check.
    REEF_MEMBER void finish() {
        if (thread_index() == 0) set_bits(bit_word, bit);
    }
};
