// SPDX-License-Identifier: Apache-2.0
// The two regions of a session: how large, where what lies, written once for a new session and compared word by word
// for one that is adopted.
#pragma once
#include <reef_abi.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "task.hpp"

namespace reef {

// Everything in D that follows from the task and the session's id. Adoption recomputes it and compares all of it.
struct Layout {
    explicit Layout(const Task& task);

    reef_header header{};  // crc and session_id are filled in by write()
    std::vector<reef_model_desc> models;
    std::vector<reef_tensor_desc> tensors;
};

// A mapping of one region; unmapped when it dies.
class Mapping {
public:
    Mapping() = default;
    // Maps all of it, prefaulted and, where the limits allow, locked. EngineFailure names the region and the reason;
    // -EBADMSG when the object is not a plain file of exactly this size.
    Mapping(int fd, uint64_t size, const char* what);
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping();

    std::byte* base() const { return base_; }
    uint64_t size() const { return size_; }
    bool locked() const { return locked_; }
    template <class T> T* at(uint64_t offset) const { return reinterpret_cast<T*>(base_ + offset); }

private:
    std::byte* base_ = nullptr;
    uint64_t size_ = 0;
    bool locked_ = false;
};

// A new session: descriptors first, the header last, so that a half-written region has no valid CRC.
void write_header(const Mapping& d, const Layout& layout, uint64_t session_id);

// A region of a predecessor: magic, version, CRC, every offset and size, the descriptors, the signature, the task.
// EngineFailure with -EBADMSG (or -EPROTONOSUPPORT for another ABI) says what differs.
void check_header(const Mapping& d, const Layout& layout, uint64_t session_id);

}  // namespace reef
