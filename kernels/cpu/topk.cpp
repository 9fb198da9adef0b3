// SPDX-License-Identifier: Apache-2.0
// topk: the k largest (or smallest) values along the last axis, in order, and their places as int64. Of equal values the
// earlier comes first.
#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

struct Params {
    DType dtype;
    bool largest;
    size_t extent, k, lines;
};

struct Body {
    // Insertion into the k best so far: k is small in what networks ask for.
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        return with_number(p.dtype, [&]<class T>(Tag<T>) {
            const T* x = static_cast<const T*>(args.args[0]) + args.block * p.extent;
            T* values = static_cast<T*>(args.args[1]) + args.block * p.k;
            int64_t* places = static_cast<int64_t*>(args.args[2]) + args.block * p.k;
            size_t held = 0, since = 4096;
            for (size_t i = 0; i < p.extent; i++) {
                T value = x[i];
                size_t at = held;
                for (; at > 0 && (p.largest ? value > values[at - 1] : value < values[at - 1]); at--) {
                    if (at < p.k) {
                        values[at] = values[at - 1];
                        places[at] = places[at - 1];
                    }
                    since++;
                }
                if (at < p.k) {
                    values[at] = value;
                    places[at] = static_cast<int64_t>(i);
                    held += held < p.k;
                }
                if (since++ >= 4096) {
                    if (check.stale())
                        return false;
                    since = 0;
                }
            }
            return true;
        });
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 1, 2))
        return false;
    const TensorView &x = spec.tensor(0), &values = spec.tensor(1), &places = spec.tensor(2);
    if (x.rank == 0 || values.dtype != x.dtype || places.dtype != DType::i64 || !same_shape(values, places) ||
        values.rank != x.rank)
        return spec.fail("'%s' and '%s' do not fit '%s'", values.name, places.name, x.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    p->extent = static_cast<size_t>(x.shape[x.rank - 1]);
    p->k = static_cast<size_t>(values.shape[x.rank - 1]);
    p->lines = elements(x) / p->extent;
    if (p->k > p->extent || elements(values) != p->lines * p->k)
        return spec.fail("'%s' has another size", values.name);
    if (!with_number(x.dtype, [](auto) { return true; }))
        return spec.fail("'%s' has a type that cannot be compared", x.name);
    p->dtype = x.dtype;
    p->largest = spec.integer("largest", 1) != 0;
    return finish<Body>(spec, kernel, p, p->lines);
}

}  // namespace

extern const Operator topk;
const Operator topk{"topk", create};

}  // namespace reef::cpu::REEF_ISA
