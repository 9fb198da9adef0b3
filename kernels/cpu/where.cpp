// SPDX-License-Identifier: Apache-2.0
// where: y = condition ? a : b, broadcasting as NumPy does; any type.
#include "broadcast.hpp"
#include "dispatch.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

struct Params {
    Walk<3> walk;
    DType dtype;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        uint32_t last = p.walk.rank - 1;
        return with_size(p.dtype, [&]<class T>(Tag<T>) {
            const uint8_t* c = static_cast<const uint8_t*>(args.args[0]);
            const T *a = static_cast<const T*>(args.args[1]), *b = static_cast<const T*>(args.args[2]);
            T* y = static_cast<T*>(args.args[3]);
            size_t step_c = p.walk.stride[0][last], step_a = p.walk.stride[1][last], step_b = p.walk.stride[2][last];
            return p.walk.block(args.block, check, [&](const size_t* at, size_t to, size_t count) {
                const uint8_t* chosen = c + at[0];
                const T *yes = a + at[1], *no = b + at[2];
                for (size_t i = 0; i < count; i++)
                    y[to + i] = chosen[i * step_c] ? yes[i * step_a] : no[i * step_b];
            });
        });
    }
};

bool create(Spec& spec, Kernel& kernel) {
    if (!check_arguments(spec, 3))
        return false;
    const TensorView &c = spec.tensor(0), &a = spec.tensor(1), &b = spec.tensor(2), &y = spec.tensor(3);
    if (c.dtype != DType::b || a.dtype != y.dtype || b.dtype != y.dtype)
        return spec.fail("needs a bool and two operands of the type of '%s'", y.name);
    Params* p = allocate<Params>(spec);
    if (!p || !plan_walk<3>(spec, {&c, &a, &b}, y, p->walk))
        return false;
    p->dtype = y.dtype;
    return finish<Body>(spec, kernel, p, p->walk.blocks());
}

}  // namespace

extern const Operator where;
const Operator where{"where", create};

}  // namespace reef::cpu::REEF_ISA
