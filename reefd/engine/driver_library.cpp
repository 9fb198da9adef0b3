// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include "driver.hpp"

namespace reef {

DriverLibrary::DriverLibrary(std::vector<std::string> names) {
    std::string tried;
    for (const std::string& name : names) {
        handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (handle_) {
            name_ = name;
            return;
        }
        tried += tried.empty() ? name : ", " + name;
    }
    throw DriverError("no driver library was found; tried " + tried);
}

void* DriverLibrary::find(const char* name) const { return dlsym(handle_, name); }

void* DriverLibrary::symbol(std::initializer_list<const char*> names) const {
    for (const char* name : names)
        if (void* found = find(name))
            return found;
    throw DriverError(name_ + " has no " + *names.begin() + ": it is too old for reefd");
}

void Driver::check(int status, const char* call, const std::string& what) const {
    if (status == 0)
        return;
    const char* error = error_name(status);
    throw DriverError(kind + ": " + call + (what.empty() ? "" : " (" + what + ")") + ": " + (error ? error : "error") +
                      " (" + std::to_string(status) + ")");
}

}  // namespace reef
