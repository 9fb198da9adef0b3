// SPDX-License-Identifier: Apache-2.0
#include "region.hpp"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "crc32c.hpp"
#include "failure.hpp"
#include "sync.hpp"

namespace reef {
namespace {

constexpr uint64_t align(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

void copy_name(char* to, size_t room, const std::string& name) {
    std::memcpy(to, name.data(), std::min(name.size(), room - 1));
}

reef_tensor_desc describe(const ModelTensor& tensor) {
    reef_tensor_desc desc{};
    copy_name(desc.name, sizeof desc.name, tensor.name);
    desc.dtype = tensor.dtype;
    desc.rank = static_cast<uint32_t>(tensor.shape.size());
    std::copy(tensor.shape.begin(), tensor.shape.end(), desc.shape);
    desc.offset = tensor.offset;
    desc.size = tensor.bytes;
    return desc;
}

uint32_t header_crc(reef_header header) {
    header.crc = 0;
    return crc32c(&header, sizeof header);
}

[[noreturn]] void damaged(const std::string& what) { throw EngineFailure(-EBADMSG, "region D: " + what); }

}  // namespace

Layout::Layout(const Task& task) {
    uint64_t input_area = 0;
    uint64_t output_area = 0;
    for (const TaskModel& model : task.models) {
        reef_model_desc desc{};
        copy_name(desc.name, sizeof desc.name, model.name);
        desc.first_input = static_cast<uint32_t>(tensors.size());
        desc.inputs = static_cast<uint32_t>(model.inputs.size());
        for (const ModelTensor& tensor : model.inputs) {
            tensors.push_back(describe(tensor));
        }
        desc.first_output = static_cast<uint32_t>(tensors.size());
        desc.outputs = static_cast<uint32_t>(model.outputs.size());
        for (const ModelTensor& tensor : model.outputs) {
            tensors.push_back(describe(tensor));
        }
        models.push_back(desc);
        input_area = std::max(input_area, model.input_area);
        output_area = std::max(output_area, model.output_area);
    }

    const uint64_t slots = task.spec.slots;
    const uint64_t entries = std::bit_ceil(2 * slots);
    header.magic = REEF_MAGIC;
    header.abi_major = REEF_ABI_MAJOR;
    header.abi_minor = REEF_ABI_MINOR;
    header.header_size = sizeof header;
    header.slots = static_cast<uint32_t>(slots);
    header.entries = static_cast<uint32_t>(entries);
    header.models = static_cast<uint32_t>(models.size());
    header.tensors = static_cast<uint32_t>(tensors.size());
    header.c_sq_offset = REEF_PAGE;
    header.c_slots_offset = align(header.c_sq_offset + entries * sizeof(reef_sqe), REEF_LINE);
    header.c_inputs_offset = align(header.c_slots_offset + slots * sizeof(reef_c_slot), REEF_PAGE);
    header.c_inputs_stride = input_area;
    header.c_size = header.c_inputs_offset + slots * input_area;
    header.d_cq_offset = 2 * REEF_PAGE;
    header.d_slots_offset = align(header.d_cq_offset + entries * sizeof(reef_cqe), REEF_LINE);
    header.d_models_offset = header.d_slots_offset + slots * sizeof(reef_d_slot);
    header.d_tensors_offset = header.d_models_offset + models.size() * sizeof(reef_model_desc);
    header.d_outputs_offset = align(header.d_tensors_offset + tensors.size() * sizeof(reef_tensor_desc), REEF_PAGE);
    header.d_outputs_stride = output_area;
    header.d_size = header.d_outputs_offset + slots * output_area;
    header.task_class = task.spec.real_time ? REEF_CLASS_RT : REEF_CLASS_BE;
    header.queue_policy = task.spec.queue_policy;
    header.sqe_flags_required = (task.spec.crc ? static_cast<uint32_t>(REEF_SQE_CRC) : 0u) |
                                (task.spec.payload_crc ? static_cast<uint32_t>(REEF_SQE_PAYLOAD_CRC) : 0u);
    header.deadline_ns = task.spec.deadline_ns;
    header.signature = task.spec.signature;
    copy_name(header.task, sizeof header.task, task.spec.name);
}

Mapping::Mapping(int fd, uint64_t size, const char* what) : size_(size) {
    struct stat status;
    if (fstat(fd, &status) != 0) {
        throw EngineFailure(-errno, std::string(what) + ": " + std::strerror(errno));
    }
    if (!S_ISREG(status.st_mode) || static_cast<uint64_t>(status.st_size) != size) {
        throw EngineFailure(-EBADMSG, std::string(what) + ": has " + std::to_string(status.st_size) +
                                          " bytes, the task needs " + std::to_string(size));
    }
    void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        throw EngineFailure(-errno, std::string(what) + ": mmap: " + std::strerror(errno));
    }
    base_ = static_cast<std::byte*>(base);
    locked_ = mlock(base, size) == 0;
    if (!locked_) {
        madvise(base, size, MADV_POPULATE_WRITE);  // without it the first touch of a page costs microseconds
    }
}

Mapping::Mapping(Mapping&& other) noexcept { *this = std::move(other); }

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(size_, other.size_);
    std::swap(locked_, other.locked_);
    return *this;
}

Mapping::~Mapping() {
    if (base_) {
        munmap(base_, size_);
    }
}

void write_header(const Mapping& d, const Layout& layout, uint64_t session_id) {
    std::memcpy(d.at<void>(layout.header.d_models_offset), layout.models.data(),
                layout.models.size() * sizeof(reef_model_desc));
    std::memcpy(d.at<void>(layout.header.d_tensors_offset), layout.tensors.data(),
                layout.tensors.size() * sizeof(reef_tensor_desc));
    reef_header header = layout.header;
    header.session_id = session_id;
    header.crc = header_crc(header);
    std::memcpy(d.base(), &header, sizeof header);
}

void check_header(const Mapping& d, const Layout& layout, uint64_t session_id) {
    reef_header found;
    std::memcpy(&found, d.base(), sizeof found);
    if (found.magic != REEF_MAGIC) {
        damaged("no magic");
    }
    if (found.abi_major != REEF_ABI_MAJOR || found.abi_minor > REEF_ABI_MINOR) {
        throw EngineFailure(-EPROTONOSUPPORT, "region D: ABI " + std::to_string(found.abi_major) + "." +
                                                  std::to_string(found.abi_minor) + ", this daemon speaks " +
                                                  std::to_string(REEF_ABI_MAJOR) + "." +
                                                  std::to_string(REEF_ABI_MINOR));
    }
    if (found.crc != header_crc(found)) {
        damaged("the header's CRC is wrong");
    }
    if (found.signature != layout.header.signature) {
        damaged("made for other models (the signature differs)");
    }
    reef_header expected = layout.header;
    expected.abi_minor = found.abi_minor;
    expected.session_id = session_id;
    expected.crc = header_crc(expected);
    if (std::memcmp(&found, &expected, sizeof found) != 0) {
        damaged("the header is not that of session " + std::to_string(session_id) + " of task " +
                std::string(layout.header.task));
    }
    if (std::memcmp(d.at<void>(expected.d_models_offset), layout.models.data(),
                    layout.models.size() * sizeof(reef_model_desc)) != 0 ||
        std::memcmp(d.at<void>(expected.d_tensors_offset), layout.tensors.data(),
                    layout.tensors.size() * sizeof(reef_tensor_desc)) != 0) {
        damaged("the descriptors of models and tensors differ from the task's");
    }
}

}  // namespace reef
