// SPDX-License-Identifier: Apache-2.0
// Keeps the device busy until its window is invalidated, or for TURNS check points: for measuring how quickly a device
// hears that, with every compute unit taken. args: a word that is written at the end.
#pragma once

template <class K> struct Spin {
    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        float value = 1.0f;
        for (int turn = 0; turn < (Preemptible ? K::TURNS : 1); turn++) {
            if (gate.check()) return;
            for (int i = 0; i < 64; i++) value = fused_multiply_add(value, 0.5f, 1.0f);
        }
        if (block_index() == 0 && thread_index() == 0) *(float*)args.p[0] = value;
    }
};
