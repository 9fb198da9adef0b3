// SPDX-License-Identifier: Apache-2.0
// attention: softmax(q k^T * SCALE + mask) v for every head, keys in tiles with a running maximum and sum, so that the scores
// are never written to memory ("FlashAttention", Dao et al. 2022; the running softmax is Milakov and Gimelshein's, 2018).
//
// args: q [BATCH, QUERIES, HEADS, HEAD], k [BATCH, KEYS, HEADS, HEAD], v [BATCH, KEYS, HEADS, VALUES], mask [batch, head,
// query, KEYS] that is added, with the strides of the first three (0 where it has one), y [BATCH, QUERIES, HEADS, VALUES].
// A block has TILE queries of one head; a query belongs to LANES neighbouring threads. Scores of a tile of keys go
// through shared memory; each lane owns VALUES / LANES elements of the output.
#pragma once

template <class K> struct Attention {
    using T = typename K::T;
    static constexpr int tile = K::THREADS / K::LANES, keys = K::KEY_TILE, own = K::VALUES / K::LANES;
    static constexpr int query_tiles = (K::QUERIES + tile - 1) / tile, pitch = K::HEAD + 1, value_pitch = K::VALUES + 1;
    static_assert(K::BLOCKS == K::BATCH * K::HEADS * query_tiles, "the launch matches the kernel");
    static_assert(K::SHARED == 128 + (keys * (pitch + value_pitch) + tile * pitch + tile * (keys + 1)) * 4, "the launch matches");
    static_assert(K::VALUES % K::LANES == 0 && keys % K::LANES == 0, "lanes share a query");

    // rows x Width elements, tokens of all heads apart, into shared memory as floats; rows beyond `count` are zero.
    template <int Width> REEF_DEVICE void fill(float* shared, const T* from, int rows, int count) {
        for (int i = thread_index(); i < rows * Width; i += K::THREADS) {
            int row = i / Width, column = i % Width;
            shared[row * (Width + 1) + column] = row < count ? as_float(from[(i64)row * (K::HEADS * Width) + column]) : 0.0f;
        }
    }

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        float* key = (float*)(shared_memory() + 128);
        float* value = key + keys * pitch;
        float* query = value + keys * value_pitch;
        float* score = query + tile * pitch;
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        int first = block_index() % query_tiles * tile, head = block_index() / query_tiles % K::HEADS;
        int batch = block_index() / (query_tiles * K::HEADS);
        int mine = thread_index() / K::LANES, lane = thread_index() % K::LANES;
        const T* q = (const T*)args.p[0] + (((i64)batch * K::QUERIES + first) * K::HEADS + head) * K::HEAD;
        const T* k = (const T*)args.p[1] + ((i64)batch * K::KEYS * K::HEADS + head) * K::HEAD;
        const T* v = (const T*)args.p[2] + ((i64)batch * K::KEYS * K::HEADS + head) * K::VALUES;
        fill<K::HEAD>(query, q, tile, K::QUERIES - first);

        const float nothing = bits_to_float(0xff800000u);
        float top = nothing, sum = 0, out[own] = {};
        float* scores = score + mine * (keys + 1);
        bool some = first + mine < K::QUERIES;
        const T* mask = (const T*)args.p[3] + ((i64)batch * K::MASK_BATCH + (i64)head * K::MASK_HEAD +
                                               (i64)(some ? first + mine : 0) * K::MASK_QUERY);
        for (int start = 0; start < K::KEYS; start += keys) {
            if (gate.check()) return;  // also: nobody reads the tile before any more
            fill<K::HEAD>(key, k + (i64)start * (K::HEADS * K::HEAD), keys, K::KEYS - start);
            fill<K::VALUES>(value, v + (i64)start * (K::HEADS * K::VALUES), keys, K::KEYS - start);
            barrier();
#pragma unroll
            for (int j = 0; j < keys / K::LANES; j++) {
                int at = j * K::LANES + lane;
                float dot = 0;
                for (int e = 0; e < K::HEAD; e++) dot = fused_multiply_add(query[mine * pitch + e], key[at * pitch + e], dot);
                dot *= K::SCALE;
                if constexpr (K::MASK)
                    if (start + at < K::KEYS) dot += as_float(mask[start + at]);
                scores[at] = start + at < K::KEYS ? dot : nothing;
            }
            barrier();
            float higher = top;
            for (int j = 0; j < keys; j++) higher = scores[j] > higher ? scores[j] : higher;
            // A query that may see no key so far keeps weight zero; -inf - -inf would be NaN.
            float fade = top == higher ? 1.0f : exponential(top - higher);
            top = higher;
            sum *= fade;
#pragma unroll
            for (int e = 0; e < own; e++) out[e] *= fade;
            for (int j = 0; j < keys; j++) {
                float weight = scores[j] == nothing ? 0.0f : exponential(scores[j] - top);
                sum += weight;
#pragma unroll
                for (int e = 0; e < own; e++)
                    out[e] = fused_multiply_add(weight, value[j * value_pitch + lane + e * K::LANES], out[e]);
            }
        }
        if (some) {
            float scale = sum > 0 ? reciprocal(sum) : 0;
            T* y = (T*)args.p[4] + (((i64)batch * K::QUERIES + first + mine) * K::HEADS + head) * K::VALUES;
#pragma unroll
            for (int e = 0; e < own; e++) from_float(out[e] * scale, y[lane + e * K::LANES]);
        }
    }
};
