// SPDX-License-Identifier: Apache-2.0
// Memory of the device, and page-locked memory of the host that the device reads and writes; freed with the object.
#pragma once
#include <cstddef>
#include <memory>
#include <utility>

#include "driver.hpp"

namespace reef {

// Out of memory is a DriverError that says how much was asked for, what for, and how much there is.
class DeviceMemory {
public:
    DeviceMemory() = default;
    DeviceMemory(std::shared_ptr<const Driver> driver, size_t bytes, const std::string& what);
    DeviceMemory(DeviceMemory&& other) noexcept : driver_(std::move(other.driver_)), base_(other.base_) {
        other.base_ = nullptr;
    }
    DeviceMemory& operator=(DeviceMemory&& other) noexcept;
    ~DeviceMemory();

    std::byte* at(size_t offset) const { return base_ + offset; }

private:
    std::shared_ptr<const Driver> driver_;
    std::byte* base_ = nullptr;
};

class HostMemory {
public:
    HostMemory() = default;
    HostMemory(std::shared_ptr<const Driver> driver, size_t bytes, const std::string& what);
    HostMemory(HostMemory&& other) noexcept
        : driver_(std::move(other.driver_)), base_(other.base_), device_base_(other.device_base_) {
        other.base_ = nullptr;
    }
    HostMemory& operator=(HostMemory&& other) noexcept;
    ~HostMemory();

    std::byte* at(size_t offset) const { return base_ + offset; }
    std::byte* device_at(size_t offset) const {
        return device_base_ + offset;
    }  // the same bytes, as the device sees them

private:
    std::shared_ptr<const Driver> driver_;
    std::byte* base_ = nullptr;
    std::byte* device_base_ = nullptr;
};

}  // namespace reef
