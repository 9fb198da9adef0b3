// SPDX-License-Identifier: Apache-2.0
// attention: softmax(q k^T * SCALE + mask) v for every head, keys in tiles with a running maximum and sum.
//
// args: q [BATCH, QUERIES, heads, HEAD], k and v [BATCH, KEYS, heads, HEAD] with the pitches of one token given (so that a
// joint projection serves as it is), mask [BATCH or 1, KEYS] floats that are added, y [BATCH, QUERIES, HEADS * HEAD].
// A block has TILE queries of one head; a query belongs to LANES neighbouring threads. Scores of a tile of keys go
// through shared memory; each lane owns HEAD / LANES elements of the output.
#pragma once

template <class K> struct Attention {
    using T = typename K::T;
    static constexpr int tile = K::THREADS / K::LANES, keys = K::KEY_TILE, own = K::HEAD / K::LANES;
    static constexpr int query_tiles = (K::QUERIES + tile - 1) / tile, pitch = K::HEAD + 1;
    static_assert(K::BLOCKS == K::BATCH * K::HEADS * query_tiles, "the launch matches the kernel");
    static_assert(K::SHARED == 128 + (2 * keys * pitch + tile * pitch + tile * (keys + 1)) * 4, "the launch matches");
    static_assert(K::HEAD % K::LANES == 0 && keys % K::LANES == 0, "lanes share a query");

    // rows x HEAD elements, tokens `stride` elements apart, into shared memory as floats; rows beyond `count` are zero.
    REEF_DEVICE void fill(float* shared, const T* from, int stride, int rows, int count) {
        for (int i = thread_index(); i < rows * K::HEAD; i += K::THREADS) {
            int row = i / K::HEAD, column = i % K::HEAD;
            shared[row * pitch + column] = row < count ? as_float(from[(i64)row * stride + column]) : 0.0f;
        }
    }

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        u8* memory = shared_memory();
        float* key = (float*)(memory + 128);
        float* value = key + keys * pitch;
        float* query = value + keys * pitch;
        float* score = query + tile * pitch;
        Gate<Preemptible> gate(place, (u32*)memory, block_index());
        dependency_launch();
        dependency_wait();
        gate.begin();
        int first = block_index() % query_tiles * tile, head = block_index() / query_tiles % K::HEADS;
        int batch = block_index() / (query_tiles * K::HEADS);
        int mine = thread_index() / K::LANES, lane = thread_index() % K::LANES;
        const T* q = (const T*)args.p[0] + ((i64)batch * K::QUERIES + first) * K::Q_PITCH + head * K::HEAD;
        const T* k = (const T*)args.p[1] + (i64)batch * K::KEYS * K::K_PITCH + head * K::HEAD;
        const T* v = (const T*)args.p[2] + (i64)batch * K::KEYS * K::V_PITCH + head * K::HEAD;
        fill(query, q, K::Q_PITCH, tile, K::QUERIES - first);

        float top = bits_to_float(0xff800000u), sum = 0, out[own] = {};
        float* scores = score + mine * (keys + 1);
        for (int start = 0; start < K::KEYS; start += keys) {
            if (gate.check()) return;  // also: nobody reads the tile before any more
            fill(key, k + (i64)start * K::K_PITCH, K::K_PITCH, keys, K::KEYS - start);
            fill(value, v + (i64)start * K::V_PITCH, K::V_PITCH, keys, K::KEYS - start);
            barrier();
#pragma unroll
            for (int j = 0; j < keys / K::LANES; j++) {
                int at = j * K::LANES + lane;
                float dot = 0;
                for (int e = 0; e < K::HEAD; e++) dot = fused_multiply_add(query[mine * pitch + e], key[at * pitch + e], dot);
                dot *= K::SCALE;
                if constexpr (K::MASK)
                    if (start + at < K::KEYS) dot += ((const float*)args.p[3])[(K::MASK_BATCH > 1 ? batch * K::KEYS : 0) + start + at];
                bool seen = start + at < K::KEYS && (!K::CAUSAL || start + at <= first + mine + K::KEYS - K::QUERIES);
                scores[at] = seen ? dot : bits_to_float(0xff800000u);
            }
            barrier();
            float higher = top;
            for (int j = 0; j < keys; j++) higher = scores[j] > higher ? scores[j] : higher;
            // A row that has seen no key yet keeps weight zero; -inf - -inf would be NaN.
            float fade = top == higher ? 1.0f : exponential(top - higher);
            top = higher;
            sum *= fade;
#pragma unroll
            for (int e = 0; e < own; e++) out[e] *= fade;
            for (int j = 0; j < keys; j++) {
                float weight = scores[j] == bits_to_float(0xff800000u) ? 0.0f : exponential(scores[j] - top);
                sum += weight;
#pragma unroll
                for (int e = 0; e < own; e++)
                    out[e] = fused_multiply_add(weight, value[j * pitch + lane + e * K::LANES], out[e]);
            }
        }
        if (first + mine < K::QUERIES) {
            float scale = sum > 0 ? reciprocal(sum) : 0;
            T* y = (T*)args.p[4] + ((i64)batch * K::QUERIES + first + mine) * (K::HEADS * K::HEAD) + head * K::HEAD;
#pragma unroll
            for (int e = 0; e < own; e++) from_float(out[e] * scale, y[lane + e * K::LANES]);
        }
        gate.finish();
    }
};
