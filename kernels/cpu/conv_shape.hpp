// SPDX-License-Identifier: Apache-2.0
// What conv2d and depthwise_conv2d read from a resource: shapes, attributes and arguments, checked completely.
#pragma once
#include "activation.hpp"
#include "work.hpp"

namespace reef::cpu::REEF_ISA {
namespace {

constexpr int64_t kLargestSize = int64_t{1} << 30;    // of one dimension, pad, stride or dilation
constexpr int64_t kLargestTensor = int64_t{1} << 40;  // elements

struct ConvShape {
    int64_t batch, height, width, channels;  // of x
    int64_t out_height, out_width, out_channels;
    int64_t groups;
    int64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int64_t pad_top, pad_left;
    bool input_nchw, output_nchw;
    bool activation_first;
    ActivationSpec activation;
    int64_t residual_channels;  // 0: no residual
    int residual_argument, output_argument;
    const float* weights;  // [O, C/g, KH, KW]
    const float* bias;     // [O] or null
    const float* slope;    // [O], [1] or null
    bool one_slope;
};

// The elements of a dense float tensor, or 0 when something about it is wrong.
REEF_INLINE int64_t float_elements(const TensorView& tensor) {
    if (tensor.dtype != DType::f32 || tensor.rank > 8)
        return 0;
    int64_t elements = 1;
    for (uint32_t i = 0; i < tensor.rank; ++i) {
        if (tensor.shape[i] < 1 || tensor.shape[i] > kLargestSize)
            return 0;
        elements *= tensor.shape[i];
        if (elements > kLargestTensor)
            return 0;
    }
    return tensor.bytes == static_cast<size_t>(elements) * sizeof(float) ? elements : 0;
}

REEF_INLINE bool is_map(const TensorView& tensor) { return tensor.rank == 4 && float_elements(tensor) > 0; }

REEF_INLINE bool read_layout(Spec& spec, const char* attribute, bool& nchw) {
    const char* layout = spec.string(attribute, "nhwc");
    nchw = same_text(layout, "nchw");
    if (nchw || same_text(layout, "nhwc"))
        return true;
    return spec.fail("%s \"%.40s\" is neither nhwc nor nchw", attribute, layout);
}

REEF_INLINE bool read_list(Spec& spec, const char* attribute, int64_t* values, int count, int64_t otherwise,
                           int64_t least) {
    for (int i = 0; i < count; ++i)
        values[i] = otherwise;
    const int given = spec.integers(attribute, values, count);
    if (given != -1 && given != count)
        return spec.fail("%s has %d values, expected %d", attribute, given, count);
    for (int i = 0; i < count; ++i) {
        if (values[i] < least || values[i] > kLargestSize)
            return spec.fail("%s[%d] is %lld, out of range", attribute, i, static_cast<long long>(values[i]));
    }
    return true;
}

// The output's size along one axis, or 0 when the kernel does not fit into the padded input.
REEF_INLINE int64_t output_size(int64_t size, int64_t before, int64_t after, int64_t kernel, int64_t dilation,
                                int64_t stride) {
    const int64_t reach = (kernel - 1) * dilation + 1;
    const int64_t padded = size + before + after;
    return padded < reach ? 0 : (padded - reach) / stride + 1;
}

// Arguments after x and w, in order: bias, residual, slope, y.
[[maybe_unused]] bool read_arguments(Spec& spec, ConvShape& shape) {
    const bool has_bias = spec.integer("bias", 0) != 0;
    const bool has_residual = spec.integer("residual", 0) != 0;
    const bool has_slope = shape.activation.kind == Activation::prelu;
    if ((spec.integer("prelu", has_slope ? 1 : 0) != 0) != has_slope)
        return spec.fail("prelu is %s, but the activation is not", has_slope ? "0" : "1");
    const uint32_t expected = 3U + (has_bias ? 1 : 0) + (has_residual ? 1 : 0) + (has_slope ? 1 : 0);
    if (spec.tensors() != expected)
        return spec.fail("has %u arguments, expected %u", spec.tensors(), expected);
    for (uint32_t i = 0; i < expected; ++i) {
        const TensorView& tensor = spec.tensor(i);
        if (float_elements(tensor) == 0)
            return spec.fail("'%s' is not a float32 tensor of a usable size", tensor.name);
        if ((tensor.access == Access::read) != (i + 1 < expected))
            return spec.fail("'%s' must be %s", tensor.name, i + 1 < expected ? "read" : "written");
    }
    if (!is_map(spec.tensor(0)) || spec.tensor(1).rank != 4 || !is_map(spec.tensor(expected - 1)))
        return spec.fail("x, w and y must have four dimensions");
    uint32_t next = 1;
    const TensorView& weights = spec.tensor(next++);
    if (weights.constant == nullptr)
        return spec.fail("the weights '%s' are not constant", weights.name);
    shape.weights = static_cast<const float*>(weights.constant);
    if (has_bias) {
        const TensorView& bias = spec.tensor(next++);
        if (bias.constant == nullptr || float_elements(bias) != weights.shape[0])
            return spec.fail("the bias '%s' must be constant, one for each output channel", bias.name);
        shape.bias = static_cast<const float*>(bias.constant);
    }
    if (has_residual) {
        if (!is_map(spec.tensor(next)))
            return spec.fail("the residual '%s' must have four dimensions", spec.tensor(next).name);
        shape.residual_channels = spec.tensor(next).shape[3];
        shape.residual_argument = static_cast<int>(next++);
    }
    if (has_slope) {
        const TensorView& slope = spec.tensor(next++);
        const int64_t count = float_elements(slope);
        if (slope.constant == nullptr || (count != weights.shape[0] && count != 1))
            return spec.fail("the slope '%s' must be constant, one for each output channel", slope.name);
        shape.slope = static_cast<const float*>(slope.constant);
        shape.one_slope = count == 1;
    }
    shape.output_argument = static_cast<int>(next);
    return true;
}

[[maybe_unused]] bool read_conv(Spec& spec, ConvShape& shape) {
    shape = ConvShape{};
    int64_t strides[2];
    int64_t dilations[2];
    int64_t pads[4];
    if (!read_activation(spec, shape.activation) || !read_arguments(spec, shape))
        return false;
    if (!read_list(spec, "strides", strides, 2, 1, 1) || !read_list(spec, "dilations", dilations, 2, 1, 1))
        return false;
    if (!read_list(spec, "pads", pads, 4, 0, 0))
        return false;
    if (!read_layout(spec, "input_layout", shape.input_nchw) || !read_layout(spec, "output_layout", shape.output_nchw))
        return false;
    shape.activation_first = spec.integer("activation_first", 0) != 0;

    const TensorView& x = spec.tensor(0);
    const TensorView& w = spec.tensor(1);
    const TensorView& y = spec.tensor(static_cast<uint32_t>(shape.output_argument));
    const int64_t* size = x.shape;
    shape.batch = size[0];
    shape.channels = shape.input_nchw ? size[1] : size[3];
    shape.height = shape.input_nchw ? size[2] : size[1];
    shape.width = shape.input_nchw ? size[3] : size[2];
    shape.out_channels = w.shape[0];
    shape.kernel_h = w.shape[2];
    shape.kernel_w = w.shape[3];
    shape.stride_h = strides[0];
    shape.stride_w = strides[1];
    shape.dilation_h = dilations[0];
    shape.dilation_w = dilations[1];
    shape.pad_top = pads[0];
    shape.pad_left = pads[1];
    shape.groups = spec.integer("group", 1);
    if (shape.groups < 1 || shape.channels % shape.groups != 0 || shape.out_channels % shape.groups != 0)
        return spec.fail("%lld groups do not divide %lld input and %lld output channels",
                         static_cast<long long>(shape.groups), static_cast<long long>(shape.channels),
                         static_cast<long long>(shape.out_channels));
    if (w.shape[1] != shape.channels / shape.groups)
        return spec.fail("'%s' has %lld channels in a group, the input has %lld", w.name,
                         static_cast<long long>(w.shape[1]), static_cast<long long>(shape.channels / shape.groups));
    shape.out_height = output_size(shape.height, pads[0], pads[2], shape.kernel_h, shape.dilation_h, shape.stride_h);
    shape.out_width = output_size(shape.width, pads[1], pads[3], shape.kernel_w, shape.dilation_w, shape.stride_w);
    const int64_t* out = y.shape;
    const bool same = out[0] == shape.batch && out[shape.output_nchw ? 1 : 3] == shape.out_channels &&
                      out[shape.output_nchw ? 2 : 1] == shape.out_height &&
                      out[shape.output_nchw ? 3 : 2] == shape.out_width;
    if (shape.out_height < 1 || shape.out_width < 1 || !same)
        return spec.fail("'%s' should have %lld channels of %lld x %lld", y.name,
                         static_cast<long long>(shape.out_channels), static_cast<long long>(shape.out_height),
                         static_cast<long long>(shape.out_width));
    if (shape.residual_channels != 0) {
        const TensorView& residual = spec.tensor(static_cast<uint32_t>(shape.residual_argument));
        if (residual.shape[0] != shape.batch || residual.shape[1] != shape.out_height ||
            residual.shape[2] != shape.out_width || shape.residual_channels > shape.out_channels)
            return spec.fail("the residual '%s' does not fit the output", residual.name);
    }
    return true;
}

// The residual is added after the activation, which the register tiles cannot do.
REEF_INLINE bool residual_after(const ConvShape& shape) {
    return shape.activation_first && shape.residual_channels != 0;
}

// Weights, bias and slope were packed: the device may free the originals.
[[maybe_unused]] void release_constants(Spec& spec, const ConvShape& shape) {
    for (int i = 1; i < shape.output_argument; ++i)
        if (shape.residual_channels == 0 || i != shape.residual_argument)
            spec.packed(static_cast<uint32_t>(i));
}

}  // namespace
}  // namespace reef::cpu::REEF_ISA
