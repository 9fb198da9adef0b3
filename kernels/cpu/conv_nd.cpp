// SPDX-License-Identifier: Apache-2.0
// conv_nd: convolution over any number of spatial axes of an N, C, ... map, float32 or float64, with weights that may come
// with the request. conv2d is the fast one.
#include "dispatch.hpp"
#include "window.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 16384;  // multiplications of a block, about
constexpr size_t kStep = 2048;   // between two check points, about

struct Params {
    Window window;
    DType dtype;
    bool bias;
    size_t channels, outputs, group;  // of the whole map, of the result, and how many groups
    size_t results, per_block;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        const Window& w = p.window;
        size_t from = args.block * p.per_block, to = smaller(from + p.per_block, p.results), since = kStep;
        size_t in_group = p.channels / p.group, out_group = p.outputs / p.group;
        return with_number(p.dtype, [&]<class T>(Tag<T>) {
            if constexpr (!is_float<T>)
                return true;
            const T *x = static_cast<const T*>(args.args[0]), *weights = static_cast<const T*>(args.args[1]);
            const T* bias = p.bias ? static_cast<const T*>(args.args[2]) : nullptr;
            T* y = static_cast<T*>(args.args[p.bias ? 3 : 2]);
            for (size_t result = from; result < to; result++) {
                int64_t start[kMaxAxes];
                w.begin(result % w.out_size, start);
                size_t out = result / w.out_size % p.outputs, image = result / w.out_size / p.outputs;
                const T* map = x + (image * p.channels + out / out_group * in_group) * w.in_size;
                const T* filter = weights + out * in_group * w.kernel_size;
                double sum = bias ? static_cast<double>(bias[out]) : 0;
                for (size_t k = 0; k < w.kernel_size; k++) {
                    int64_t at = w.at(start, k);
                    if (at < 0)
                        continue;
                    for (size_t c = 0; c < in_group; c++) {
                        if (since++ >= kStep) {
                            if (check.stale())
                                return false;
                            since = 0;
                        }
                        sum += static_cast<double>(map[c * w.in_size + static_cast<size_t>(at)]) *
                               static_cast<double>(filter[c * w.kernel_size + k]);
                    }
                }
                y[result] = static_cast<T>(sum);
            }
            return true;
        });
    }
};

bool create(Spec& spec, Kernel& kernel) {
    bool bias = spec.integer("bias", 0) != 0;
    if (!check_arguments(spec, bias ? 3 : 2) || !check_same_dtype(spec))
        return false;
    const TensorView &x = spec.tensor(0), &weights = spec.tensor(1), &y = spec.tensor(bias ? 3 : 2);
    int64_t group = spec.integer("group", 1);
    if (x.dtype != DType::f32 && x.dtype != DType::f64)
        return spec.fail("'%s' is not float32 or float64", x.name);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    if (weights.rank != x.rank || x.rank < 3 || !read_window(spec, x, y, weights.shape + 2, false, p->window))
        return spec.fail("the window of '%s' is wrong", weights.name);
    if (group < 1 || x.shape[1] % group || y.shape[1] % group || weights.shape[0] != y.shape[1] ||
        weights.shape[1] != x.shape[1] / group || x.shape[0] != y.shape[0] ||
        (bias && elements(spec.tensor(2)) != static_cast<size_t>(y.shape[1])))
        return spec.fail("'%s', '%s' and '%s' do not fit", x.name, weights.name, y.name);
    p->dtype = x.dtype;
    p->bias = bias;
    p->channels = static_cast<size_t>(x.shape[1]);
    p->outputs = static_cast<size_t>(y.shape[1]);
    p->group = static_cast<size_t>(group);
    p->results = elements(y);
    size_t work = p->window.kernel_size * (p->channels / p->group);
    p->per_block = work >= kWork ? 1 : kWork / work;
    return finish<Body>(spec, kernel, p, ceil_div(p->results, p->per_block));
}

}  // namespace

extern const Operator conv_nd;
const Operator conv_nd{"conv_nd", create};

}  // namespace reef::cpu::REEF_ISA
