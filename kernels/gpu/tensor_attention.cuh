// SPDX-License-Identifier: Apache-2.0
// attention of halves on tensor cores; arguments and meaning as in attention.cuh ("FlashAttention-2", Dao 2023, section 3.1:
// a warp has 16 queries, and the weights go from one product into the next without leaving their registers).
//
// A block has 16 queries a warp of one head. Keys and values come in tiles of KEY_TILE, the next ones while these are worked on.
#pragma once

template <class K> struct TensorAttention {
    static constexpr int warps = K::THREADS / 32, tile = 16 * warps, keys = K::KEY_TILE;
    static constexpr int query_tiles = (K::QUERIES + tile - 1) / tile, key_tiles = (K::KEYS + keys - 1) / keys;
    // Chunks of a row in shared memory: one more than it has, so that eight rows begin in different banks.
    static constexpr int head_pitch = K::HEAD / 8 + 1, value_pitch = K::VALUES / 8 + 1;
    static constexpr int stage = keys * (head_pitch + value_pitch);
    static_assert(K::BLOCKS == K::BATCH * K::HEADS * query_tiles, "the launch matches the kernel");
    static_assert(K::SHARED == 128 + (tile * head_pitch + 2 * stage) * 16, "the launch matches the kernel");
    static_assert(K::HEAD % 16 == 0 && K::VALUES % 16 == 0 && keys % 16 == 0, "products are 16 wide");

    // rows x Width halves, tokens of all heads apart; rows from `count` on are zero.
    template <int Width> REEF_DEVICE void fetch(Chunk* to, const Half* from, int rows, int count) {
        constexpr int chunks = Width / 8;
        for (int i = thread_index(); i < rows * chunks; i += K::THREADS) {
            const int row = i / chunks, column = i % chunks;
            copy_async(to + row * (chunks + 1) + column, from + (i64)row * (K::HEADS * Width) + column * 8, row < count);
        }
    }
    // Of the four lanes that share a row.
    REEF_DEVICE float greatest(float value) {
        float other = lane_exchange(value, 1);
        value = other > value ? other : value;
        other = lane_exchange(value, 2);
        return other > value ? other : value;
    }
    REEF_DEVICE float total(float value) {
        value += lane_exchange(value, 1);
        return value + lane_exchange(value, 2);
    }
    REEF_DEVICE u32 pair(float first, float second) { return to_half(first).bits | (u32)to_half(second).bits << 16; }

    template <bool Preemptible> REEF_DEVICE void run(const Args& args, const Place& place) {
        Chunk* query = (Chunk*)(shared_memory() + 128);
        Chunk* stages = query + tile * head_pitch;
        Gate<Preemptible> gate(place, block_index());
        gate.enter();
        const int first = block_index() % query_tiles * tile, head = block_index() / query_tiles % K::HEADS;
        const int batch = block_index() / (query_tiles * K::HEADS);
        const int warp = thread_index() / 32, lane = thread_index() % 32;
        const Half* k = (const Half*)args.p[1] + ((i64)batch * K::KEYS * K::HEADS + head) * K::HEAD;
        const Half* v = (const Half*)args.p[2] + ((i64)batch * K::KEYS * K::HEADS + head) * K::VALUES;
        auto begin = [&](int number) {
            const int start = number * keys;
            Chunk* to = stages + number % 2 * stage;
            fetch<K::HEAD>(to, k + (i64)start * (K::HEADS * K::HEAD), keys, K::KEYS - start);
            fetch<K::VALUES>(to + keys * head_pitch, v + (i64)start * (K::HEADS * K::VALUES), keys, K::KEYS - start);
        };
        fetch<K::HEAD>(query, (const Half*)args.p[0] + (((i64)batch * K::QUERIES + first) * K::HEADS + head) * K::HEAD, tile,
                       K::QUERIES - first);
        begin(0);
        copies_commit();

        // A lane has two rows of its warp's 16, lane / 4 and 8 further, and of each two neighbouring columns in every eight.
        const float nothing = bits_to_float(0xff800000u);
        const int row = first + warp * 16 + lane / 4, pair_of = lane % 4 * 2;
        const Half* mask[2];
#pragma unroll
        for (int r = 0; r < 2; r++)
            mask[r] = (const Half*)args.p[3] + ((i64)batch * K::MASK_BATCH + (i64)head * K::MASK_HEAD +
                                                (i64)(row + r * 8 < K::QUERIES ? row + r * 8 : 0) * K::MASK_QUERY);
        float top[2] = {nothing, nothing}, sum[2] = {}, out[K::VALUES / 8][4] = {};
        u32 q[K::HEAD / 16][4];
#pragma unroll 1
        for (int number = 0; number < key_tiles; number++) {
            copies_wait<0>();
            if (gate.check()) return;  // also: the tile is there for all, and nobody reads the one before any more
            if (number + 1 < key_tiles) begin(number + 1);
            copies_commit();
            const Chunk* key = stages + number % 2 * stage;
            const Chunk* value = key + keys * head_pitch;
            if (number == 0) {
#pragma unroll
                for (int e = 0; e < K::HEAD / 16; e++)
                    load_matrices(q[e], query + (warp * 16 + lane % 16) * head_pitch + e * 2 + lane / 16);
            }

            float weight[keys / 8][4] = {};
#pragma unroll
            for (int e = 0; e < K::HEAD / 16; e++)
#pragma unroll
                for (int j = 0; j < keys / 16; j++) {
                    u32 b[4];
                    load_matrices(b, key + (j * 16 + lane % 8 + lane / 16 * 8) * head_pitch + e * 2 + lane / 8 % 2);
                    multiply_matrices(weight[2 * j], q[e], b[0], b[1]);
                    multiply_matrices(weight[2 * j + 1], q[e], b[2], b[3]);
                }
            float higher[2] = {top[0], top[1]};
#pragma unroll
            for (int j = 0; j < keys / 8; j++)
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    const int at = number * keys + j * 8 + pair_of + c % 2;
                    float score = weight[j][c] * K::SCALE;
                    if constexpr (K::MASK)
                        if (at < K::KEYS) score += to_float(mask[c / 2][at]);
                    weight[j][c] = score = at < K::KEYS ? score : nothing;
                    higher[c / 2] = score > higher[c / 2] ? score : higher[c / 2];
                }
            float fade[2];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                higher[r] = greatest(higher[r]);
                // A query that may see no key so far keeps weight zero; -inf - -inf would be NaN.
                fade[r] = top[r] == higher[r] ? 1.0f : exponential(top[r] - higher[r]);
                top[r] = higher[r];
                sum[r] *= fade[r];
            }
#pragma unroll
            for (int j = 0; j < keys / 8; j++)
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    weight[j][c] = weight[j][c] == nothing ? 0.0f : exponential(weight[j][c] - top[c / 2]);
                    sum[c / 2] += weight[j][c];
                }
#pragma unroll
            for (int j = 0; j < K::VALUES / 8; j++)
#pragma unroll
                for (int c = 0; c < 4; c++) out[j][c] *= fade[c / 2];
#pragma unroll
            for (int i = 0; i < keys / 16; i++) {
                const float(&low)[4] = weight[2 * i];
                const float(&high)[4] = weight[2 * i + 1];
                const u32 a[4] = {pair(low[0], low[1]), pair(low[2], low[3]), pair(high[0], high[1]), pair(high[2], high[3])};
#pragma unroll
                for (int j = 0; j < K::VALUES / 16; j++) {
                    u32 b[4];
                    load_matrices_transposed(b, value + (i * 16 + lane % 16) * value_pitch + j * 2 + lane / 16);
                    multiply_matrices(out[2 * j], a, b[0], b[1]);
                    multiply_matrices(out[2 * j + 1], a, b[2], b[3]);
                }
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float all = total(sum[r]), scale = all > 0 ? reciprocal(all) : 0;
            if (row + r * 8 >= K::QUERIES) continue;
            Half* y = (Half*)args.p[4] + (((i64)batch * K::QUERIES + row + r * 8) * K::HEADS + head) * K::VALUES;
#pragma unroll
            for (int j = 0; j < K::VALUES / 8; j++)
                *(u32*)(y + j * 8 + pair_of) = pair(out[j][2 * r] * scale, out[j][2 * r + 1] * scale);
        }
    }
};
