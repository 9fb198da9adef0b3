// SPDX-License-Identifier: Apache-2.0
// The kernels of one thread that frame a window of best-effort kernels, in queue order.
#pragma once

// Before the first kernel, where it changed. p[0]: the context's two words; p[1]: their new value, the epoch under which
// the window is launched in the low half, the number of shielded kernels in the high half.
REEF_WINDOW(reef_window_begin, { *(u64*)args.p[0] = (u64)args.p[1]; })

// After the last: all kernels below place.kernel are done if the window is still valid (place.progress is null where
// nobody asks); the window has retired either way. p[0]: the queue's count of windows, in device memory, so that a window
// in a graph needs no argument that changes; p[1]: the host-visible word that shows it.
REEF_WINDOW(reef_window_end, {
    dependency_wait();
    if (place.progress && !moved_on(load_relaxed(place.queue_epoch), load_relaxed(place.window_epoch)))
        publish_release(place.progress, place.kernel);
    u32* count = (u32*)args.p[0];
    publish_release((u32*)args.p[1], ++*count);
})
