// SPDX-License-Identifier: Apache-2.0
// pool_nd: pooling over any number of spatial axes of an N, C, ... map, in any arithmetic type: max (with the places of the
// values as a second result, if asked for), average, or the p-norm. pool2d is the fast one.
#include <math.h>

#include "dispatch.hpp"
#include "window.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr size_t kWork = 8192;  // values read by a block, about
constexpr size_t kStep = 512;   // values read between two check points

enum class Mode : uint32_t { max, average, lp };
constexpr const char* kModeNames[] = {"max", "average", "lp"};

struct Params {
    Window window;
    Mode mode;
    DType dtype;
    bool count_pads, places, column_major;
    double p;
    size_t results, per_block;
};

struct Body {
    template <class Check> static bool block(const Kernel& kernel, const BlockArgs& args, const Check& check) {
        const Params& p = *static_cast<const Params*>(kernel.params);
        const Window& w = p.window;
        size_t from = args.block * p.per_block, to = smaller(from + p.per_block, p.results), since = kStep;
        return with_number(p.dtype, [&]<class T>(Tag<T>) {
            T* y = static_cast<T*>(args.args[1]);
            for (size_t result = from; result < to; result++) {
                int64_t start[kMaxAxes];
                w.begin(result % w.out_size, start);
                size_t plane = result / w.out_size;
                const T* x = static_cast<const T*>(args.args[0]) + plane * w.in_size;
                T most{};
                int64_t best = -1, inside = 0;
                double sum = 0;
                for (size_t k = 0; k < w.kernel_size; k++) {
                    if (since++ >= kStep) {
                        if (check.stale())
                            return false;
                        since = 0;
                    }
                    int64_t at = w.at(start, k);
                    if (at < 0)
                        continue;
                    inside++;
                    T value = x[at];
                    if (best < 0 || value > most) {
                        most = value;
                        best = at;
                    }
                    double real = static_cast<double>(value);
                    sum += p.mode == Mode::lp ? pow(fabs(real), p.p) : real;
                }
                if (p.mode == Mode::max) {
                    y[result] = best < 0 ? T{0} : most;
                    if (p.places)
                        static_cast<int64_t*>(args.args[2])[result] = place(p, plane, best);
                } else if (p.mode == Mode::average) {
                    int64_t counted = p.count_pads ? w.padded(start) : inside;
                    y[result] = static_cast<T>(counted > 0 ? sum / static_cast<double>(counted) : 0);
                } else {
                    y[result] = static_cast<T>(pow(sum, 1 / p.p));
                }
            }
            return true;
        });
    }

    // The flat place in the whole tensor, the spatial axes counted from the other end where column_major.
    static int64_t place(const Params& p, size_t plane, int64_t best) {
        const Window& w = p.window;
        if (best < 0)
            best = 0;
        if (p.column_major) {
            int64_t rest = best, turned = 0, place[kMaxAxes];
            for (int d = w.axes; d-- > 0; rest /= w.in[d])
                place[d] = rest % w.in[d];
            for (int d = w.axes; d-- > 0;)
                turned = turned * w.in[d] + place[d];
            best = turned;
        }
        return static_cast<int64_t>(plane * w.in_size) + best;
    }
};

bool create(Spec& spec, Kernel& kernel) {
    uint32_t outputs = spec.tensors() == 3 ? 2 : 1;
    if (!check_arguments(spec, 1, outputs))
        return false;
    const TensorView &x = spec.tensor(0), &y = spec.tensor(1);
    Params* p = allocate<Params>(spec);
    if (!p)
        return false;
    const char* mode = spec.string("mode", "max");
    int found = find_name(mode, kModeNames);
    if (found < 0)
        return spec.fail("unknown mode '%.40s'", mode);
    p->mode = static_cast<Mode>(found);
    int64_t extents[kMaxAxes] = {};
    if (x.rank < 3 || x.rank > 2 + kMaxAxes || !read_list(spec, "kernel", extents, static_cast<int>(x.rank) - 2, 0) ||
        !read_window(spec, x, y, extents, true, p->window))
        return spec.fail("the window of '%s' is wrong", x.name);
    p->places = outputs == 2;
    if (p->places && (p->mode != Mode::max || spec.tensor(2).dtype != DType::i64 || !same_shape(y, spec.tensor(2))))
        return spec.fail("'%s' must be int64 of the shape of '%s', mode max", spec.tensor(2).name, y.name);
    if (x.dtype != y.dtype || x.shape[0] != y.shape[0] || x.shape[1] != y.shape[1] ||
        !with_number(x.dtype, [](auto) { return true; }))
        return spec.fail("'%s' and '%s' do not fit", x.name, y.name);
    p->dtype = x.dtype;
    p->count_pads = spec.integer("count_include_pad", 0) != 0;
    p->column_major = spec.integer("column_major", 0) != 0;
    p->p = static_cast<double>(spec.integer("p", 2));
    if (p->p < 1)
        return spec.fail("p must be at least 1");
    p->results = elements(y);
    p->per_block = p->window.kernel_size >= kWork ? 1 : kWork / p->window.kernel_size;
    return finish<Body>(spec, kernel, p, ceil_div(p->results, p->per_block));
}

}  // namespace

extern const Operator pool_nd;
const Operator pool_nd{"pool_nd", create};

}  // namespace reef::cpu::REEF_ISA
