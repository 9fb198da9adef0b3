// SPDX-License-Identifier: Apache-2.0
// pad: x with room round it (or, where a pad is negative, without its edge), filled with `value`, or by repeating the edge,
// reflecting at it, or going round; `interior` fills between neighbours, constant mode only. Any type.
#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 32 << 10;  // elements of y, about
constexpr size_t kStep = 2 << 10;    // elements between two check points

enum class Mode : uint32_t { constant, reflect, edge, wrap };
constexpr const char* kModeNames[] = {"constant", "reflect", "edge", "wrap"};

struct Params {
    uint32_t rank;
    size_t item;
    Mode mode;
    int64_t in[8];
    int64_t out[8];
    int64_t begin[8];
    int64_t spacing[8];  // interior + 1
    int64_t stride[8];   // of x
    size_t rows;
    size_t rows_per_block;
    uint64_t fill;  // the element's bits
};

// Where place i of axis d comes from in x, -1: from nowhere.
inline int64_t source(const Params& p, uint32_t d, int64_t i) {
    int64_t at = i - p.begin[d], extent = p.in[d];
    switch (p.mode) {
    case Mode::constant:
        if (p.spacing[d] != 1) {
            if (at < 0 || at % p.spacing[d] != 0)
                return -1;
            at /= p.spacing[d];
        }
        return at < 0 || at >= extent ? -1 : at;
    case Mode::edge:
        return at < 0 ? 0 : at >= extent ? extent - 1 : at;
    case Mode::wrap:
        return (at % extent + extent) % extent;
    case Mode::reflect:
        break;
    }
    if (extent == 1)
        return 0;
    int64_t period = 2 * (extent - 1), turned = (at % period + period) % period;
    return turned < extent ? turned : period - turned;
}

struct Body {
    template <class T, class Check> static bool typed(const Params& p, const BlockArgs& args, const Check& check) {
        const T* x = static_cast<const T*>(args.args[0]);
        T* y = static_cast<T*>(args.args[1]);
        T fill;
        memcpy(&fill, &p.fill, sizeof fill);
        uint32_t last = p.rank - 1;
        int64_t length = p.out[last];
        bool plain = p.mode == Mode::constant && p.spacing[last] == 1;
        int64_t left = p.begin[last] < 0 ? 0 : p.begin[last] < length ? p.begin[last] : length;
        int64_t right = p.begin[last] + p.in[last] < length ? p.begin[last] + p.in[last] : length;
        if (right < left)
            right = left;
        size_t from = args.block * p.rows_per_block, to = smaller(from + p.rows_per_block, p.rows), since = kStep;
        for (size_t row = from; row < to; row++) {
            int64_t at = 0;
            size_t rest = row;
            for (uint32_t d = last; d-- > 0 && at >= 0;) {
                int64_t place = source(p, d, static_cast<int64_t>(rest % static_cast<size_t>(p.out[d])));
                rest /= static_cast<size_t>(p.out[d]);
                at = place < 0 ? -1 : at + place * p.stride[d];
            }
            T* out = y + row * static_cast<size_t>(length);
            for (int64_t begin = 0; begin < length;) {
                if (since >= kStep) {
                    if (check.stale())
                        return false;
                    since = 0;
                }
                int64_t end =
                    begin + static_cast<int64_t>(kStep) < length ? begin + static_cast<int64_t>(kStep) : length;
                if (at < 0) {
                    for (int64_t i = begin; i < end; i++)
                        out[i] = fill;
                } else if (plain) {
                    const T* in = x + at - p.begin[last];
                    int64_t i = begin;
                    for (; i < end && i < left; i++)
                        out[i] = fill;
                    for (; i < end && i < right; i++)
                        out[i] = in[i];
                    for (; i < end; i++)
                        out[i] = fill;
                } else {
                    for (int64_t i = begin; i < end; i++) {
                        int64_t place = source(p, last, i);
                        out[i] = place < 0 ? fill : x[at + place];
                    }
                }
                since += static_cast<size_t>(end - begin) + 64;
                begin = end;
            }
        }
        return true;
    }

    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
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

template <class T> uint64_t bits(T value) {
    uint64_t result = 0;
    memcpy(&result, &value, sizeof value);
    return result;
}

// The value as an element of a type; false: this type has no such padding.
bool fill_bits(DType dtype, double value, uint64_t& result) {
    switch (dtype) {
    case DType::f32:
        result = bits(static_cast<float>(value));
        return true;
    case DType::f64:
        result = bits(value);
        return true;
    case DType::f16:
        result = 0;
        return value == 0;
    case DType::b:
        result = value != 0;
        return true;
    default:
        break;
    }
    if (!(value >= -9.2e18 && value <= 9.2e18))
        return false;
    result = bits(static_cast<int64_t>(value));
    return true;
}

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1) || !check_same_dtype(spec))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    int rank = static_cast<int>(x.rank);
    if (x.rank != y.rank || rank == 0)
        return spec.fail("'%s' and '%s' differ in rank", x.name, y.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    int64_t pads[16], interior[8];
    if (!read_list(spec, "pads", pads, 2 * rank, 0) || !read_list(spec, "interior", interior, rank, 0))
        return false;
    const char* name = spec.string("mode", "constant");
    int mode = find_name(name, kModeNames);
    if (mode < 0)
        return spec.fail("unknown mode '%s'", name);
    p->mode = static_cast<Mode>(mode);
    if (!fill_bits(x.dtype, spec.number("value", 0), p->fill))
        return spec.fail("'%s' cannot be padded with this value", x.name);
    p->rank = x.rank;
    p->item = item_size(x.dtype);
    p->rows = 1;
    int64_t step = 1;
    for (int d = rank; d-- > 0;) {
        constexpr int64_t kLimit = int64_t{1} << 31;
        if (interior[d] < 0 || interior[d] > kLimit || pads[d] < -kLimit || pads[d] > kLimit ||
            pads[rank + d] < -kLimit || pads[rank + d] > kLimit || x.shape[d] > kLimit)
            return spec.fail("pads of axis %d are out of range", d);
        if (interior[d] && p->mode != Mode::constant)
            return spec.fail("interior needs mode constant");
        int64_t wanted = (x.shape[d] - 1) * (interior[d] + 1) + 1 + pads[d] + pads[rank + d];
        if (wanted != y.shape[d])
            return spec.fail("axis %d of '%s' should be %lld", d, y.name, static_cast<long long>(wanted));
        p->in[d] = x.shape[d];
        p->out[d] = y.shape[d];
        p->begin[d] = pads[d];
        p->spacing[d] = interior[d] + 1;
        p->stride[d] = step;
        step *= x.shape[d];
        if (d + 1 < rank)
            p->rows *= static_cast<size_t>(y.shape[d]);
    }
    size_t length = static_cast<size_t>(y.shape[rank - 1]);
    p->rows_per_block = length >= kBlock ? 1 : kBlock / length;
    return finish<Body>(spec, kernel, p, ceil_div(p->rows, p->rows_per_block));
}

}  // namespace

extern const Operator pad;
const Operator pad{"pad", create};

}  // namespace reef::cpu::REEF_ISA
