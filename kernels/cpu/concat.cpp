// SPDX-License-Identifier: Apache-2.0
// concat: x1 ... xn one after the other along `axis`; any type.
#include "common.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kBlock = 64 << 10;  // bytes of y
constexpr size_t kStep = 8 << 10;    // bytes between two check points

struct Params {
    uint32_t parts;
    size_t bytes;
    size_t row;           // bytes of y for one place of the axes before `axis`
    const size_t* begin;  // [parts + 1]: where each part begins in a row
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        char* y = static_cast<char*>(args.args[p.parts]);
        size_t at = args.block * kBlock, to = smaller(at + kBlock, p.bytes), since = kStep;
        size_t row = at / p.row, column = at % p.row;
        uint32_t part = 0;
        while (p.begin[part + 1] <= column)
            part++;
        while (at < to) {
            if (since >= kStep) {
                if (check.stale())
                    return false;
                since = 0;
            }
            size_t width = p.begin[part + 1] - p.begin[part], inside = column - p.begin[part];
            size_t piece = smaller(smaller(width - inside, to - at), kStep);
            memcpy(y + at, static_cast<const char*>(args.args[part]) + row * width + inside, piece);
            at += piece;
            column += piece;
            since += piece + 64;
            if (column == p.begin[part + 1] && ++part == p.parts) {
                part = 0;
                column = 0;
                row++;
            }
        }
        return true;
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (spec.tensors() < 2)
        return spec.fail("has %u arguments, expected 2 or more", spec.tensors());
    uint32_t parts = spec.tensors() - 1;
    if (!check_arguments(spec, parts) || !check_same_dtype(spec))
        return false;
    const TensorView& y = spec.tensor(parts);
    int64_t axis = spec.integer("axis", 0);
    if (axis < 0 || axis >= static_cast<int64_t>(y.rank))
        return spec.fail("axis %lld", static_cast<long long>(axis));
    size_t outer = 1, inner = item_size(y.dtype);
    for (uint32_t d = 0; d < y.rank; d++) {
        if (static_cast<int64_t>(d) < axis)
            outer *= static_cast<size_t>(y.shape[d]);
        if (static_cast<int64_t>(d) > axis)
            inner *= static_cast<size_t>(y.shape[d]);
    }
    Params* p = allocate<Params>(spec);
    size_t* begin = allocate<size_t>(spec, parts + 1);
    if (!p || !begin)
        return false;
    int64_t total = 0;
    for (uint32_t i = 0; i < parts; i++) {
        const TensorView& x = spec.tensor(i);
        bool fits = x.rank == y.rank;
        for (uint32_t d = 0; fits && d < y.rank; d++)
            fits = x.shape[d] == y.shape[d] || static_cast<int64_t>(d) == axis;
        if (!fits)
            return spec.fail("'%s' does not fit '%s'", x.name, y.name);
        total += x.shape[axis];
        begin[i + 1] = begin[i] + static_cast<size_t>(x.shape[axis]) * inner;
    }
    if (total != y.shape[axis])
        return spec.fail("the parts have %lld places, '%s' has another number", static_cast<long long>(total), y.name);
    *p = {parts, y.bytes, y.bytes / outer, begin};
    return finish<Body>(spec, kernel, p, ceil_div(y.bytes, kBlock));
}

}  // namespace

extern const Operator concat;
const Operator concat{"concat", create};

}  // namespace reef::cpu::REEF_ISA
