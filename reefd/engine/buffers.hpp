// SPDX-License-Identifier: Apache-2.0
// Python's buffers as the inputs and outputs of one run without a session.
#pragma once
#include <nanobind/nanobind.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "model.hpp"

namespace reef {

namespace nb = nanobind;

// A C-contiguous buffer of any element type, held while this object lives.
class BufferView {
public:
    BufferView(nb::handle object, bool writable, const std::string& what) {
        int flags = PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) {
            PyErr_Clear();
            throw nb::type_error((what + " is no contiguous " + (writable ? "writable " : "") + "buffer").c_str());
        }
    }
    ~BufferView() { PyBuffer_Release(&view_); }
    BufferView(const BufferView&) = delete;
    BufferView& operator=(const BufferView&) = delete;
    std::span<std::byte> bytes() const { return {static_cast<std::byte*>(view_.buf), static_cast<size_t>(view_.len)}; }

private:
    Py_buffer view_;
};

// Inputs and outputs of one run, copied between Python's buffers and areas laid out like a slot's.
class Areas {
public:
    Areas(const ModelFacts& facts, nb::sequence inputs, nb::sequence outputs) : facts_(facts) {
        hold(facts.inputs, inputs, false, inputs_);
        hold(facts.outputs, outputs, true, outputs_);
        input_area = allocate(facts.input_bytes);
        output_area = allocate(facts.output_bytes);
        for (size_t i = 0; i < inputs_.size(); i++)
            std::memcpy(input_area.get() + facts.inputs[i].offset, inputs_[i]->bytes().data(), facts.inputs[i].bytes);
        // What nobody writes stays what the caller put there, and not what a run before left in this memory.
        for (size_t i = 0; i < outputs_.size(); i++)
            std::memcpy(output_area.get() + facts.outputs[i].offset, outputs_[i]->bytes().data(),
                        facts.outputs[i].bytes);
    }
    void copy_out() const {
        for (size_t i = 0; i < outputs_.size(); i++)
            std::memcpy(outputs_[i]->bytes().data(), output_area.get() + facts_.outputs[i].offset,
                        facts_.outputs[i].bytes);
    }

    std::shared_ptr<std::byte> input_area;
    std::shared_ptr<std::byte> output_area;

private:
    static std::shared_ptr<std::byte> allocate(uint64_t bytes) {
        void* area = std::aligned_alloc(REEF_PAGE, bytes + REEF_PAGE);
        if (!area)
            throw std::bad_alloc();
        return {static_cast<std::byte*>(area), std::free};
    }
    static void hold(const std::vector<ModelTensor>& tensors, nb::sequence objects, bool writable,
                     std::vector<std::unique_ptr<BufferView>>& buffers) {
        if (nb::len(objects) != tensors.size())
            throw ModelError(std::to_string(nb::len(objects)) + " buffers for " + std::to_string(tensors.size()) +
                             " tensors");
        for (nb::handle object : objects) {
            const ModelTensor& tensor = tensors[buffers.size()];
            buffers.push_back(std::make_unique<BufferView>(object, writable, "'" + tensor.name + "'"));
            size_t bytes = buffers.back()->bytes().size();
            if (bytes != tensor.bytes)
                throw ModelError("'" + tensor.name + "' has " + std::to_string(tensor.bytes) + " bytes, its buffer " +
                                 std::to_string(bytes));
        }
    }

    const ModelFacts& facts_;
    std::vector<std::unique_ptr<BufferView>> inputs_;
    std::vector<std::unique_ptr<BufferView>> outputs_;
};

}  // namespace reef
