// SPDX-License-Identifier: Apache-2.0
// A matrix product with few rows (fully connected layers of a small batch): y[m][o] = x[m] . w[o], weights read once.
// args: x [M][K], w [O][K] padded to whole chunks, bias, -, -, y [M][O].
//
// LANES threads share one output; their sums are added in lane order. The weights of the first steps are loaded before
// the kernel before has ended.
#pragma once

template <class K> struct Gemv {
    using T = typename K::T;
    static constexpr int chunk = Traits<T>::chunk, chunks = (K::DEPTH + chunk - 1) / chunk, padded = chunks * chunk;
    static constexpr int outputs_here = K::THREADS / K::LANES, steps = (chunks + K::LANES - 1) / K::LANES;
    static_assert(K::BLOCKS == (K::O + outputs_here - 1) / outputs_here, "the launch matches the kernel");
    static_assert(K::SHARED == 128 + K::M * K::THREADS * 4, "the launch matches the kernel");

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        Gate<Preemptible> gate(place, block_index());
        dependency_launch();
        int lane = thread_index() % K::LANES, output = block_index() * outputs_here + thread_index() / K::LANES;
        bool some = K::O % outputs_here == 0 || output < K::O;
        const T* row = (const T*)args.p[1] + (i64)(some ? output : 0) * padded;
        const T* x = (const T*)args.p[0];
        auto weights = [&](int step) {
            int c = step * K::LANES + lane;
            return load_chunk(row + c * chunk, some && (chunks % K::LANES == 0 || c < chunks));
        };
        constexpr int ahead = steps < K::AHEAD ? steps : K::AHEAD;
        Chunk early[ahead];
#pragma unroll
        for (int s = 0; s < ahead; s++) early[s] = weights(s);
        auto operand = [&](int m, int step) {
            int c = step * K::LANES + lane;
            if constexpr (K::DEPTH % chunk == 0) return load_chunk(x + m * K::DEPTH + c * chunk, c < chunks);
            float b[chunk];
#pragma unroll
            for (int e = 0; e < chunk; e++)
                b[e] = c * chunk + e < K::DEPTH ? as_float(x[m * K::DEPTH + c * chunk + e]) : 0.0f;
            return pack(b, T{});
        };
        dependency_wait();
        gate.begin();
        // A few are loaded before the check point, and again a turn ahead; more would not fit into registers.
        constexpr bool together = K::M * ahead <= 8;
        Chunk values[ahead][together ? K::M : 1];
        auto load_values = [&](int first) {
#pragma unroll
            for (int s = 0; s < ahead; s++)
#pragma unroll
                for (int m = 0; m < (together ? K::M : 1); m++) values[s][m] = operand(m, first + s);
        };
        if constexpr (together) load_values(0);
        constexpr int period = 8 * ahead;  // steps between two check points
        constexpr bool looks_again = Preemptible && steps > period;
        if (looks_again ? gate.check() : gate.stop()) return;
        float sum[K::M] = {};
#pragma unroll 1  // or a compiler that unrolls it loads far ahead, past check points, and runs out of registers
        for (int first = 0; first < steps; first += ahead) {
            if (looks_again && first > 0 && first % period == 0 && gate.check_again()) return;
            Chunk now[ahead];
#pragma unroll
            for (int s = 0; s < ahead; s++) now[s] = early[s];
#pragma unroll
            for (int s = 0; s < ahead; s++) early[s] = first + ahead + s < steps ? weights(first + ahead + s) : Chunk{};
#pragma unroll
            for (int s = 0; s < ahead; s++) {
                if (first + s >= steps || (chunks % K::LANES != 0 && (first + s) * K::LANES + lane >= chunks)) continue;
#pragma unroll
                for (int m = 0; m < K::M; m++)
                    sum[m] = dot(now[s], together ? values[s][together ? m : 0] : operand(m, first + s), sum[m], T{});
            }
            if (together && first + ahead < steps) load_values(first + ahead);
        }
        float* shared = (float*)(shared_memory() + 128);  // [m][thread]
#pragma unroll
        for (int m = 0; m < K::M; m++) shared[m * K::THREADS + thread_index()] = sum[m];
        barrier();
        for (int item = thread_index(); item < K::M * outputs_here; item += K::THREADS) {
            int m = item / outputs_here, o = item % outputs_here, at = block_index() * outputs_here + o;
            if (at >= K::O) continue;
            float value = 0;
#pragma unroll
            for (int l = 0; l < K::LANES; l++) value += shared[m * K::THREADS + o * K::LANES + l];
            if constexpr (K::BIAS) value += ((const float*)args.p[2])[at];
            from_float(activate<K::ACTIVATION>(value, K::ALPHA, K::BETA), ((typename K::Out*)args.p[5])[m * K::O + at]);
        }
    }
};
