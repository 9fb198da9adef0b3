// SPDX-License-Identifier: Apache-2.0
// The kernels of one thread that frame a window of best-effort kernels, in queue order.
#pragma once

// Before the first kernel: the epoch under which the window was launched.
REEF_WINDOW(reef_window_begin, (Context * context, u32 epoch), { context->window_epoch = epoch; })

// After the last: all kernels below `last` are done if the window is still valid; the window has retired either way.
REEF_WINDOW(reef_window_end, (Context * context, u32 last, u32* mark_word, u32 mark), {
    if (load_relaxed(context->queue_epoch) == context->window_epoch) publish_release(context->progress, last);
    publish_release(mark_word, mark);
})
