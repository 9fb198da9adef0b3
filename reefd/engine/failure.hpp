// SPDX-License-Identifier: Apache-2.0
// What a refused command throws; Python sees EngineError with the code.
#pragma once
#include <stdexcept>
#include <string>

namespace reef {

class EngineFailure : public std::runtime_error {
public:
    EngineFailure(int code, const std::string& what) : std::runtime_error(what), code(code) {}
    const int code;  // a negative errno
};

}  // namespace reef
