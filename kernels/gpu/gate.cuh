// SPDX-License-Identifier: Apache-2.0
// Preemption of a running block, and the record from which a kernel goes on exactly where it was stopped.
//
// Gate<false> is the plain kernel: a barrier and nothing else. Gate<true> belongs to a best-effort launch. A block
//   - returns when the queue epoch is not its window's, or when its bit is already set;
//   - looks again at each check(), with a load issued at the check before, so that nobody waits for it;
//   - sets its bit when it has finished; the block that finishes last publishes the kernel's index to the host.
// All threads of a block leave together: thread 0 decides, and the decision travels through shared memory across a
// barrier that the loop has anyway. Two words take turns, so that the decision of one check is still readable while
// thread 0 writes the next.
#pragma once

// In device memory, one for each execution context. The host writes the first four when the context is made or moves to
// another queue (after its last window has retired); window_epoch is written in queue order before a window's kernels.
struct alignas(64) Context {
    const u32* queue_epoch;
    u32* progress;      // host-visible: number of kernels done, counted from the first
    u32* bits;          // one bit a block; each kernel starts at a word of its own
    u32* counts;        // blocks done, one word a kernel
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
    // The barrier of the loop. True: leave now.
    REEF_MEMBER bool check() {
        barrier();
        return false;
    }
    REEF_MEMBER void finish(u32) {}
};

template <> struct Gate<true> {
    const Place& place;
    u32* decision;  // two words of shared memory
    u32 block;      // the block's number, or the cluster's where a cluster is the unit of restoration
    const u32* queue_epoch;
    u32 window_epoch, seen;
    u32 turn;
    bool done;

    REEF_MEMBER Gate(const Place& where, u32* words, u32 number)
        : place(where), decision(words), block(number), queue_epoch(nullptr), window_epoch(0), seen(0), turn(0), done(false) {
        if (thread_index() == 0) {
            queue_epoch = place.context->queue_epoch;
            window_epoch = load_relaxed(&place.context->window_epoch);
            seen = load_relaxed(queue_epoch);
            done = load_relaxed(place.context->bits + place.bit_word + block / 32) >> block % 32 & 1;
        }
    }

    REEF_MEMBER bool check() {
        if (thread_index() == 0) decision[turn] = done || seen != window_epoch;
        barrier();
        bool leave = decision[turn] != 0;
        turn ^= 1;
        if (thread_index() == 0 && !leave) seen = load_relaxed(queue_epoch);
        return leave;
    }

    // After the block's last write. blocks: how many blocks (or clusters) the kernel has.
    REEF_MEMBER void finish(u32 blocks) {
        barrier();
        if (thread_index() != 0) return;
        u32 bit = 1u << block % 32;
        Context& context = *place.context;
        if (fetch_or(context.bits + place.bit_word + block / 32, bit) & bit) return;
        if (fetch_add(context.counts + place.kernel, 1) + 1 == blocks) publish(context.progress, place.kernel + 1);
    }
};
