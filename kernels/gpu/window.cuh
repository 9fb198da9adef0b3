// SPDX-License-Identifier: Apache-2.0
// The kernels of one thread that frame a window of best-effort kernels, in queue order.
#pragma once

// Before the first kernel, where they changed: the context's words, p[0]. In the halves of p[1]: the window's epoch, and
// the first kernel that its host wants run; of p[2]: how far kernels of this request were launched under the epoch before
// (0: none were; all ones: this epoch and this request as before), and the number of shielded kernels.
//
// Where the last epoch's windows stopped is known here, behind them in the queue, whatever their host has heard. What
// blocks left under an epoch stays known as long as the epoch is the windows': one that is stale from the start must
// not be taken for one that nobody left.
REEF_WINDOW(reef_window_begin, {
    u32* window = (u32*)args.p[0];
    const u32 epoch = (u32)(u64)args.p[1];
    const u32 first = (u32)((u64)args.p[1] >> 32);
    const u32 reached = (u32)(u64)args.p[2];
    if (reached != ~0u) {
        const u32 left = window[Window::least_left];
        const u32 done = reached != 0 ? (left < reached ? left : reached) : 0;
        window[Window::next] = done > first ? done : first;
        window[Window::left_under] = done >= first && done < reached ? window[Window::epoch] : 0;
    }
    if (window[Window::epoch] != epoch) window[Window::least_left] = ~0u;
    window[Window::epoch] = epoch;
    window[Window::shielded] = (u32)((u64)args.p[2] >> 32);
})

// After the last: of the kernels below place.kernel those are done that come before the first one that a block left
// (place.progress is null where nobody asks); the window has retired either way. p[0]: the queue's count of windows, in
// device memory, so that a window in a graph needs no argument that changes; p[1]: the host-visible word that shows it.
REEF_WINDOW(reef_window_end, {
    dependency_wait();
    u32* count = (u32*)args.p[0];
    const u32 windows = load_relaxed(count) + 1;  // beside the other load, not behind the host's word
    if (place.progress) {
        const u32 left = load_relaxed(place.window + Window::least_left);
        publish(place.progress, left < place.kernel ? left : place.kernel);
    }
    *count = windows;
    publish_release((u32*)args.p[1], windows);
})
