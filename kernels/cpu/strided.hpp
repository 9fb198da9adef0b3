// SPDX-License-Identifier: Apache-2.0
// Copying with strides: the body of transpose, slice and expand. y is dense; element (i0, i1, ...) of y comes from
// x[start + i0 * stride[0] + i1 * stride[1] + ...]. Strides may be 0 (expand) or negative (slice).
#pragma once
#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kCopyBytes = 64 << 10;  // of a block, about
constexpr size_t kCopyStep = 8 << 10;    // between two check points
constexpr size_t kTile = 16;

struct StridedCopy {
    uint32_t rank;
    size_t item;
    int64_t start;
    size_t shape[8];
    int64_t stride[8];
    // Rows along the last axis; in a turned copy, `kTile` of the rows along `fast` are done together.
    size_t rows;
    size_t rows_per_block;
    int fast;  // the axis that is dense in x where the last one is not; -1: none
};

template <class T> void copy_row(T* y, const T* x, size_t length, int64_t stride) {
    if (stride == 1) {
        memcpy(y, x, length * sizeof(T));
    } else if (stride == 0) {
        T value = x[0];
        for (size_t i = 0; i < length; i++)
            y[i] = value;
    } else {
        for (size_t i = 0; i < length; i++)
            y[i] = x[static_cast<int64_t>(i) * stride];
    }
}

struct StridedBody {
    // Rows in the order of y, each with its own start in x.
    template <class T, class Check>
    static bool straight(const StridedCopy& p, const T* x, T* y, size_t block, const Check& check) {
        size_t length = p.shape[p.rank - 1], from = block * p.rows_per_block;
        size_t to = smaller(from + p.rows_per_block, p.rows), since = kCopyStep;
        for (size_t row = from; row < to; row++) {
            int64_t at = p.start;
            size_t rest = row;
            for (uint32_t d = p.rank - 1; d-- > 0;) {
                at += static_cast<int64_t>(rest % p.shape[d]) * p.stride[d];
                rest /= p.shape[d];
            }
            // A single row may be the whole tensor.
            for (size_t done = 0; done < length;) {
                if (since >= kCopyStep) {
                    if (check.stale())
                        return false;
                    since = 0;
                }
                size_t piece = smaller(length - done, kCopyStep / sizeof(T));
                copy_row(y + row * length + done, x + at + static_cast<int64_t>(done) * p.stride[p.rank - 1], piece,
                         p.stride[p.rank - 1]);
                done += piece;
                since += piece * sizeof(T) + 64;
            }
        }
        return true;
    }

    // A matrix turned round: tiles of kTile places along `fast`, so that what is read together lies together.
    template <class T, class Check>
    static bool turned(const StridedCopy& p, const T* x, T* y, size_t block, const Check& check) {
        uint32_t fast = static_cast<uint32_t>(p.fast);
        size_t length = p.shape[p.rank - 1], tiles = ceil_div(p.shape[fast], kTile);
        size_t y_fast = 1;
        for (uint32_t d = fast + 1; d < p.rank; d++)
            y_fast *= p.shape[d];
        size_t from = block * p.rows_per_block, to = smaller(from + p.rows_per_block, p.rows);
        for (size_t tile = from; tile < to; tile++) {
            size_t first = tile % tiles * kTile, rest = tile / tiles;
            size_t count = smaller(kTile, p.shape[fast] - first);
            int64_t at = p.start + static_cast<int64_t>(first);
            size_t y_at = first * y_fast, y_step = length;
            for (uint32_t d = p.rank - 1; d-- > 0;) {
                if (d != fast) {
                    at += static_cast<int64_t>(rest % p.shape[d]) * p.stride[d];
                    y_at += rest % p.shape[d] * y_step;
                    rest /= p.shape[d];
                }
                y_step *= p.shape[d];
            }
            constexpr size_t kChunk = 256;
            for (size_t begin = 0; begin < length; begin += kChunk) {
                if (check.stale())
                    return false;
                size_t end = smaller(begin + kChunk, length);
                if (count == kTile) {
                    for (size_t i = begin; i < end; i++) {
                        const T* source = x + at + static_cast<int64_t>(i) * p.stride[p.rank - 1];
                        for (size_t k = 0; k < kTile; k++)
                            y[y_at + k * y_fast + i] = source[k];
                    }
                } else {
                    for (size_t i = begin; i < end; i++) {
                        const T* source = x + at + static_cast<int64_t>(i) * p.stride[p.rank - 1];
                        for (size_t k = 0; k < count; k++)
                            y[y_at + k * y_fast + i] = source[k];
                    }
                }
            }
        }
        return true;
    }

    template <class T, class Check> static bool typed(const StridedCopy& p, const BlockArgs& args, const Check& check) {
        const T* x = static_cast<const T*>(args.args[0]);
        T* y = static_cast<T*>(args.args[1]);
        return p.fast < 0 ? straight(p, x, y, args.block, check) : turned(p, x, y, args.block, check);
    }

    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const StridedCopy& p = *static_cast<const StridedCopy*>(kernel.params);
        switch (p.item) {
        case 1:
            return typed<uint8_t>(p, args, check);
        case 2:
            return typed<uint16_t>(p, args, check);
        case 4:
            return typed<uint32_t>(p, args, check);
        default:
            return typed<uint64_t>(p, args, check);
        }
    }
};

// Joins neighbouring axes that are one run in x too, and drops axes of extent 1.
inline void coalesce(StridedCopy& p) {
    uint32_t rank = 0;
    for (uint32_t d = 0; d < p.rank; d++) {
        if (p.shape[d] == 1)
            continue;
        if (rank > 0 && p.stride[rank - 1] == p.stride[d] * static_cast<int64_t>(p.shape[d])) {
            p.shape[rank - 1] *= p.shape[d];
            p.stride[rank - 1] = p.stride[d];
        } else {
            p.shape[rank] = p.shape[d];
            p.stride[rank] = p.stride[d];
            rank++;
        }
    }
    if (rank == 0) {
        p.shape[0] = 1;
        p.stride[0] = 1;
        rank = 1;
    }
    p.rank = rank;
}

// p has rank, item, start, shape and stride; the caller has made sure that every element lies in x.
inline bool finish_strided(Spec& spec, Kernel& kernel, StridedCopy* p) {
    coalesce(*p);
    size_t length = p->shape[p->rank - 1];
    p->rows = 1;
    for (uint32_t d = 0; d + 1 < p->rank; d++)
        p->rows *= p->shape[d];
    p->fast = -1;
    if (p->stride[p->rank - 1] != 1)
        for (uint32_t d = 0; d + 1 < p->rank; d++)
            if (p->stride[d] == 1 && p->shape[d] >= 4)
                p->fast = static_cast<int>(d);
    size_t unit = length * p->item;
    if (p->fast >= 0) {
        size_t extent = p->shape[p->fast];
        p->rows = p->rows / extent * ceil_div(extent, kTile);
        unit *= kTile;
    }
    p->rows_per_block = unit >= kCopyBytes ? 1 : kCopyBytes / unit;
    return finish<StridedBody>(spec, kernel, p, ceil_div(p->rows, p->rows_per_block));
}

// The strides of a dense tensor, in elements.
inline void dense_strides(const TensorView& x, int64_t* stride) {
    int64_t step = 1;
    for (uint32_t d = x.rank; d-- > 0;) {
        stride[d] = step;
        step *= x.shape[d];
    }
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
