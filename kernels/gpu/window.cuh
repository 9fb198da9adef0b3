// SPDX-License-Identifier: Apache-2.0
// The kernels of one thread that frame a window of best-effort kernels, in queue order.
#pragma once

// Before the first kernel, where they changed: the context's words, p[0]; epoch and next in p[1], left_under and shielded
// in p[2], the former of each in the low half. What blocks left under an epoch stays known as long as the epoch is the
// windows': a window that is stale from the start must not be taken for one that nobody left.
REEF_WINDOW(reef_window_begin, {
    u32* window = (u32*)args.p[0];
    const u64 first = (u64)args.p[1];
    const u64 second = (u64)args.p[2];
    if (window[Window::epoch] != (u32)first) window[Window::least_left] = ~0u;
    window[Window::epoch] = (u32)first;
    window[Window::next] = (u32)(first >> 32);
    window[Window::left_under] = (u32)second;
    window[Window::shielded] = (u32)(second >> 32);
})

// After the last: of the kernels below place.kernel those are done that come before the first one that a block left
// (place.progress is null where nobody asks); the window has retired either way. p[0]: the queue's count of windows, in
// device memory, so that a window in a graph needs no argument that changes; p[1]: the host-visible word that shows it.
REEF_WINDOW(reef_window_end, {
    dependency_wait();
    if (place.progress) {
        const u32 left = load_relaxed(place.window + Window::least_left);
        publish(place.progress, left < place.kernel ? left : place.kernel);
    }
    u32* count = (u32*)args.p[0];
    publish_release((u32*)args.p[1], ++*count);
})
