// SPDX-License-Identifier: Apache-2.0
// Preemption of a running block, and the record from which a kernel goes on exactly where it was stopped.
//
// Gate<false> is the plain kernel: a barrier and nothing else. Gate<true> belongs to a best-effort launch. A block
//   - leaves at its first check() when the queue epoch went past its window's, or when its bit is already set;
//   - looks again at each check(), with a load issued at the check before, so that nobody waits for it; unless its kernel
//     is shielded: then a block that has begun runs to its end;
//   - sets its bit once it has passed its last check point, because from there on it always finishes.
// All threads of a block leave together: thread 0 decides, and the decision travels through shared memory across a
// barrier that the loop has anyway (a barrier that reduces a flag was slower). Two words take turns, so that a decision
// is still readable while thread 0 writes the next.
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

// Which kernel of which request a launch is, by value: reading these through a pointer would cost a trip to memory.
struct Place {
    const u32* queue_epoch;
    const u32* window_epoch;  // two words of the execution context, written in queue order before a window's kernels:
                              // its epoch, and the number of kernels (from the first) whose blocks, once begun, stay
    u32* bits;                // this kernel's, one a block
    u32* progress;            // host-visible: number of kernels known to be done, counted from the first
    u32 kernel;               // its index in the model
};

// The epoch word went past the window's epoch. While it is behind, the write that makes it the window's is still on its way:
// that window is valid, or kernels before that moment would leave and those after it run, on what was never computed.
REEF_DEVICE bool moved_on(u32 epoch, u32 window_epoch) { return (int)(epoch - window_epoch) > 0; }

// A grid that the device takes at once has nothing to do while its first loads are under way, so it looks at the epoch
// after it issued them. The blocks of a larger one wait beside others, and what they load for nothing after the epoch
// moved on would keep the device.
template <class K> constexpr bool fits_at_once = K::BLOCKS <= (1 << 18) / K::THREADS;

template <bool Preemptible> struct Gate;

template <> struct Gate<false> {
    REEF_MEMBER Gate(const Place&, u32) {}
    REEF_MEMBER void begin() {}
    // The barrier of the loop. True: leave now.
    REEF_MEMBER bool check() {
        barrier();
        return false;
    }
    REEF_MEMBER void enter() {
        dependency_launch();
        dependency_wait();
    }
    REEF_MEMBER bool stop() { return false; }
    REEF_MEMBER void finish() {}
};

// Loads are kept as they come and looked at in check() only: a use stalls the thread until its load is there.
template <> struct Gate<true> {
    const Place& place;
    u32* words;  // two words of shared memory, at its start, which take turns
    u32 block;   // its number, or the cluster's where a cluster is the unit of restoration
    u32 finished, window_epoch, shielded, seen, turn;

    REEF_MEMBER Gate(const Place& where, u32 number)
        : place(where), words((u32*)shared_memory()), block(number), finished(0), window_epoch(0), shielded(0), seen(0),
          turn(0) {
        if (thread_index() == 0) {
            window_epoch = load_relaxed(place.window_epoch);
            shielded = load_relaxed(place.window_epoch + 1);
            finished = load_relaxed(place.bits + block / 32);
        }
    }

    // Directly after dependency_wait().
    REEF_MEMBER void begin() {
        if (thread_index() == 0) seen = load_relaxed(place.queue_epoch);
    }

    REEF_MEMBER bool check() {
        bool valid = !moved_on(seen, window_epoch);
        if (thread_index() == 0) words[turn] = !valid || (finished >> block % 32 & 1);
        barrier();
        bool leave = words[turn] != 0;
        turn ^= 1;
        if (thread_index() == 0) {
            if (block == 0 && valid) publish(place.progress, place.kernel);
            if (!leave && place.kernel >= shielded) seen = load_relaxed(place.queue_epoch);
        }
        return leave;
    }

    // The start of a kernel that has nothing to do before the one before it has ended.
    REEF_MEMBER void enter() {
        dependency_launch();
        dependency_wait();
        begin();
    }

    // The only check point of a kernel without a loop, before its first store; the plain form has no barrier there.
    // True: leave now.
    REEF_MEMBER bool stop() {
        bool valid = !moved_on(seen, window_epoch);
        if (thread_index() == 0) words[0] = !valid || (finished >> block % 32 & 1);
        barrier();
        if (thread_index() == 0 && block == 0 && valid) publish(place.progress, place.kernel);
        return words[0] != 0;
    }

    // After the block's last check.
    REEF_MEMBER void finish() {
        if (thread_index() == 0) set_bits(place.bits + block / 32, 1u << block % 32);
    }
};
