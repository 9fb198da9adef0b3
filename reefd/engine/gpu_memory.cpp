// SPDX-License-Identifier: Apache-2.0
#include "gpu_memory.hpp"

#include <algorithm>
#include <cstring>

namespace reef {
namespace {

std::string mebibytes(size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

}  // namespace

DeviceMemory::DeviceMemory(std::shared_ptr<const Driver> driver, size_t bytes, const std::string& what)
    : driver_(std::move(driver)) {
    void* pointer = nullptr;
    const int status = driver_->allocate(&pointer, std::max<size_t>(bytes, 256));
    if (status != 0) {
        size_t free = 0, total = 0;
        driver_->memory(&free, &total);
        driver_->check(status, "allocation",
                       what + " needs " + mebibytes(bytes) + " of device memory; " + mebibytes(free) + " of " +
                           mebibytes(total) + " are free");
    }
    base_ = static_cast<std::byte*>(pointer);
}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
    std::swap(driver_, other.driver_);
    std::swap(base_, other.base_);
    return *this;
}

DeviceMemory::~DeviceMemory() {
    if (base_)
        driver_->release(base_);
}

HostMemory::HostMemory(std::shared_ptr<const Driver> driver, size_t bytes, const std::string& what)
    : driver_(std::move(driver)) {
    void* pointer = nullptr;
    driver_->check(driver_->allocate_host(&pointer, bytes), "page-locked allocation",
                   what + " needs " + mebibytes(bytes) + " of page-locked memory");
    base_ = static_cast<std::byte*>(pointer);
    std::memset(base_, 0, bytes);
    void* device = nullptr;
    driver_->check(driver_->host_address(&device, base_), "device address of page-locked memory");
    device_base_ = static_cast<std::byte*>(device);
}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
    std::swap(driver_, other.driver_);
    std::swap(base_, other.base_);
    std::swap(device_base_, other.device_base_);
    return *this;
}

HostMemory::~HostMemory() {
    if (base_)
        driver_->release_host(base_);
}

}  // namespace reef
