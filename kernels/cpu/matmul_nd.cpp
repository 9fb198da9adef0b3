// SPDX-License-Identifier: Apache-2.0
// matmul_nd: y = a b over the last two axes, broadcasting over the others, in any arithmetic type. matmul is the fast one;
// this one is for the narrow integers that it does not take.
#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 64 << 10;  // multiplications of a block, about
constexpr size_t kStep = 8 << 10;   // between two check points, about
constexpr size_t kColumns = 64;

struct Params {
    DType dtype;
    uint32_t rank;  // of the batch
    size_t batch[8], stride_a[8], stride_b[8];
    size_t m, n, k, chunks, units, per_block;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        size_t from = args.block * p.per_block, to = smaller(from + p.per_block, p.units), since = kStep;
        return with_number(p.dtype, [&]<class T>(Tag<T>) {
            // Integers wrap, which C++ defines for unsigned ones.
            using Sum = decltype([] {
                if constexpr (is_float<T>)
                    return T{};
                else
                    return uint64_t{};
            }());
            for (size_t unit = from; unit < to; unit++) {
                size_t first = unit % p.chunks * kColumns, row = unit / p.chunks % p.m, rest = unit / p.chunks / p.m;
                size_t at_a = 0, at_b = 0;
                for (uint32_t d = p.rank; d-- > 0; rest /= p.batch[d]) {
                    at_a += rest % p.batch[d] * p.stride_a[d];
                    at_b += rest % p.batch[d] * p.stride_b[d];
                }
                const T* a = static_cast<const T*>(args.args[0]) + at_a + row * p.k;
                const T* b = static_cast<const T*>(args.args[1]) + at_b + first;
                T* y = static_cast<T*>(args.args[2]) + unit / p.chunks * p.n + first;
                size_t count = smaller(kColumns, p.n - first);
                Sum sums[kColumns] = {};
                for (size_t i = 0; i < p.k; i++) {
                    if (since >= kStep) {
                        if (check.stale())
                            return false;
                        since = 0;
                    }
                    Sum left = static_cast<Sum>(a[i]);
                    for (size_t j = 0; j < count; j++)
                        sums[j] += left * static_cast<Sum>(b[i * p.n + j]);
                    since += count;
                }
                for (size_t j = 0; j < count; j++)
                    y[j] = static_cast<T>(sums[j]);
            }
            return true;
        });
    }
};

// The strides of the batch axes of an operand, 0 where it is repeated.
bool batch_strides(const TensorView& x, const TensorView& y, size_t* stride) {
    size_t step = static_cast<size_t>(x.shape[x.rank - 1] * x.shape[x.rank - 2]);
    uint32_t missing = y.rank - x.rank;
    for (uint32_t d = y.rank - 2; d-- > 0;) {
        int64_t extent = d < missing ? 1 : x.shape[d - missing];
        if (extent != 1 && extent != y.shape[d])
            return false;
        stride[d] = extent == 1 ? 0 : step;
        step *= static_cast<size_t>(extent);
    }
    return true;
}

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 2) || !check_same_dtype(spec))
        return false;
    const TensorView &a = spec.tensor(0), &b = spec.tensor(1), &y = spec.tensor(2);
    if (a.rank < 2 || b.rank < 2 || y.rank < 2 || a.rank > y.rank || b.rank > y.rank)
        return spec.fail("operands have rank 2 or more");
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    if (!with_number(a.dtype, [](auto) { return true; }))
        return spec.fail("'%s' has a type that cannot be multiplied", a.name);
    p->dtype = a.dtype;
    p->m = static_cast<size_t>(a.shape[a.rank - 2]);
    p->k = static_cast<size_t>(a.shape[a.rank - 1]);
    p->n = static_cast<size_t>(b.shape[b.rank - 1]);
    if (b.shape[b.rank - 2] != a.shape[a.rank - 1] || y.shape[y.rank - 2] != a.shape[a.rank - 2] ||
        y.shape[y.rank - 1] != b.shape[b.rank - 1])
        return spec.fail("'%s' and '%s' do not make '%s'", a.name, b.name, y.name);
    if (!batch_strides(a, y, p->stride_a) || !batch_strides(b, y, p->stride_b))
        return spec.fail("'%s' or '%s' does not broadcast to '%s'", a.name, b.name, y.name);
    p->rank = y.rank - 2;
    for (uint32_t d = 0; d < p->rank; d++)
        p->batch[d] = static_cast<size_t>(y.shape[d]);
    p->chunks = ceil_div(p->n, kColumns);
    p->units = elements(y) / p->n * p->chunks;
    size_t work = smaller(kColumns, p->n) * p->k;
    p->per_block = work >= kWork ? 1 : kWork / work;
    return finish<Body>(spec, kernel, p, ceil_div(p->units, p->per_block));
}

}  // namespace

extern const Operator matmul_nd;
const Operator matmul_nd{"matmul_nd", create};

}  // namespace reef::cpu::REEF_ISA
