// SPDX-License-Identifier: Apache-2.0
// The kernels of one thread that frame a window of best-effort kernels, in queue order.
#pragma once

// Before the first kernel: the epoch under which the window was launched.
REEF_WINDOW(reef_window_begin, (u32 * window_epoch, u32 epoch), { *window_epoch = epoch; })

// After the last: all kernels below `last` are done if the window is still valid; the window has retired either way.
REEF_WINDOW(reef_window_end, (const Place place, u32* mark_word, u32 mark), {
    dependency_wait();
    if (load_relaxed(place.queue_epoch) == load_relaxed(place.window_epoch)) publish_release(place.progress, place.kernel);
    publish_release(mark_word, mark);
})
