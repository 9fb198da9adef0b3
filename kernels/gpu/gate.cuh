// SPDX-License-Identifier: Apache-2.0
// Preemption of a running block, and the record from which a kernel goes on exactly where it was stopped.
//
// Gate<false> is the plain kernel: a barrier and nothing else. Gate<true> belongs to a best-effort launch. A block
//   - leaves where the queue epoch went past its window's, at a check point; the first comes before its first store;
//   - looks at each check point, with a load issued at the check point before, so that nobody waits for it; unless its
//     kernel is shielded: then a block that has begun runs to its end;
//   - that leaves says so: it writes its window's epoch into its word of the record, and lowers the window's `least left`.
// A block that finishes writes nothing: undisturbed work pays for looking, not for a record. Whatever no block of a
// window left is done when the window's last kernel has ended, and window_end publishes it. (Bits set by every block that
// finished cost 0.05 us a kernel, progress published by every kernel 0.03, clearing the bits 4 us a request.)
//
// A window that goes on after another went stale is told where (`next`: kernels before it are done) and under which epoch
// blocks of kernel `next` left (`left_under`): those with that epoch in their word run, the others had finished. Blocks of
// later kernels all run, since none can have finished; no word of the record is ever cleared.
//
// All threads of a block leave together: what thread 0 loaded travels through shared memory across a barrier that the kernel
// has anyway, and all compare (a barrier that reduces a flag was slower). Two places take turns, so that one is still
// readable while thread 0 writes the next. After its last check point a block always finishes: deciding once more before
// the first store cost convolutions more than an earlier, cheaper first look had saved.
//
// What it costs is time in which nothing else is under way, so the text keeps an order that compilers would not:
//   - the epoch's load is the first after dependency_wait(), before those of the data: keep_order() holds it there. Moved
//     behind them, as ptxas does, it arrives last, and everybody waits for it;
//   - nothing uses it before the data's loads are issued: it is stored as it came, and compared behind the barrier;
//   - what a kernel needs beside its data is loaded before the check point, or it is waited for on its own behind it;
//   - what is rare stands apart, and a short loop has no check point, so that it is compiled as in the plain form.
//
// A kernel may start before the one before it has ended (programmatic dependent launch), so the epoch is first read in
// begin(), after dependency_wait(): valid then, it was valid for every block of every kernel before, since an epoch never
// returns. Read earlier it could be valid while the kernel before is then abandoned.
#pragma once

// Which kernel of which request a launch is, by value: reading these through a pointer would cost a trip to memory.
struct Place {
    const u32* queue_epoch;
    u32* window;    // five words of the execution context, written in queue order before a window's kernels: Window
    u32* left;      // this kernel's record, one word a block: the epoch of the last window under which it left
    u32* progress;  // host-visible: number of kernels known to be done, counted from the first; window_end's
    u32 kernel;     // its index in the model
};

// The words at Place::window.
struct Window {
    static constexpr int epoch = 0;
    static constexpr int next = 1;        // kernels before it are done
    static constexpr int left_under = 2;  // of kernel `next`; 0: none of its blocks has run
    static constexpr int shielded = 3;    // kernels before it are shielded
    static constexpr int least_left = 4;  // kernel, of those that a block left under this epoch
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
    REEF_MEMBER bool check_again() { return check(); }
    REEF_MEMBER void enter() {
        dependency_launch();
        dependency_wait();
    }
    REEF_MEMBER bool stop() { return false; }
};

// Loads are kept as they come and looked at where a decision is made: a use stalls the thread until its load is there.
template <> struct Gate<true> {
    const Place& place;
    Chunk* told;  // at the start of shared memory: what thread 0 saw, in two places by turns, and its judgement
    u32 block;   // its number, or the cluster's where a cluster is the unit of restoration
    Chunk window;
    u32 seen;
    u32 turn;  // counts decisions

    REEF_MEMBER Gate(const Place& where, u32 number)
        : place(where), told((Chunk*)shared_memory()), block(number), window{}, seen(0), turn(0) {
        if (thread_index() == 0) window = load_words(place.window);
    }

    // Directly after dependency_wait().
    REEF_MEMBER void begin() {
        seen = load_relaxed_if(place.queue_epoch, thread_index() == 0, seen);
        keep_order();
    }

    // The barrier of a loop. True: leave now.
    REEF_MEMBER bool check() {
        tell(resumed());
        barrier();
        look();
        return decided();
    }
    // The same where the block has passed a check point before.
    REEF_MEMBER bool check_again() {
        tell(false);
        barrier();
        look();
        return decided();
    }
    // The only check point of a kernel without a loop, before its first store; the plain form has no barrier there.
    // True: leave now.
    REEF_MEMBER bool stop() {
        tell(resumed());
        barrier();
        return decided();
    }

    // The start of a kernel that has nothing to do before the one before it has ended.
    REEF_MEMBER void enter() {
        dependency_launch();
        dependency_wait();
        begin();
    }

    // Thread 0 stores what it loaded and all compare: a store keeps its place behind the loads of a kernel's data, where
    // arithmetic would be moved in front of them and wait there.
    REEF_MEMBER void tell(bool doubt) {
        keep_order();
        if (thread_index() == 0) told[turn & 1] = Chunk{{seen, window.word[Window::epoch], doubt, 0}};
    }
    REEF_MEMBER bool decided() {
        const Chunk now = told[turn & 1];
        turn++;
        return REEF_RARELY(moved_on(now.word[0], now.word[1]) | (now.word[2] != 0)) && judged();
    }
    REEF_MEMBER void look() {
        if (thread_index() == 0 && place.kernel >= window.word[Window::shielded]) seen = load_relaxed(place.queue_epoch);
    }

    // Thread 0: an earlier window may have finished this block.
    REEF_MEMBER bool resumed() const {
        return place.kernel < window.word[Window::next] + (window.word[Window::left_under] != 0);
    }
    // All threads, where the epoch moved on or there is doubt: thread 0 asks the record. True: leave. A finished block
    // leaves without a word. What it told, not `seen`, which may be on its way again by now and would be waited for.
    REEF_MEMBER bool judged() {
        if (thread_index() == 0) {
            const u32 epoch = window.word[Window::epoch], under = window.word[Window::left_under];
            const bool finished = place.kernel < window.word[Window::next] ||
                                  (resumed() && load_relaxed(place.left + block) != under);
            const bool stale = moved_on(told[(turn + 1) & 1].word[0], epoch);
            if (stale && !finished) {
                store_relaxed(place.left + block, epoch);
                lower(place.window + Window::least_left, place.kernel);
            }
            told[2].word[0] = stale || finished;
        }
        barrier();
        return told[2].word[0] != 0;
    }
};
