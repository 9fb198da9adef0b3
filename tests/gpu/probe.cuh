// SPDX-License-Identifier: Apache-2.0
// A kernel for tests: takes its time between check points, reads the whole of its input's row of blocks, and adds one to
// a count that is read first, so that a block that ran twice, too early, or not at all shows in the outputs.
// args: x, y, counts. ID 0 sets the counts to one.
#pragma once

template <class K> struct Probe {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        if (gate.check()) return;
        const float* x = (const float*)args.p[0];
        const int mine = block_index() * K::THREADS + thread_index();
        const int other = (K::BLOCKS - 1 - block_index()) * K::THREADS + thread_index();
        float wait = x[mine];
        for (int turn = 0; turn < K::TURNS; turn++) {
            for (int i = 0; i < K::SPIN; i++) wait = fused_multiply_add(wait, 0.5f, 1.0f);
            if constexpr (K::DEAF)
                barrier();
            else if (gate.check())
                return;
        }
        ((float*)args.p[1])[mine] = x[mine] * 0.75f + x[other] * 0.5f + K::ID + (wait > 1e30f ? 1.0f : 0.0f);
        float* count = (float*)args.p[2] + mine;
        *count = K::ID == 0 ? 1.0f : *count + 1.0f;
    }
};
