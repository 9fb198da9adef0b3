// SPDX-License-Identifier: Apache-2.0
#include "cpu_isa.hpp"

#include <cstdlib>

#include "model.hpp"

namespace reef {

std::vector<CpuIsa> available_isas() {
    std::vector<CpuIsa> isas{{"portable", cpu::operators_portable()}};
#if defined(__x86_64__)
    // The compiler's probe also asks the kernel (xgetbv) whether it saves these registers. The features are those of
    // the compiler options in kernels/CMakeLists.txt.
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        isas.push_back({"avx2", cpu::operators_avx2()});
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            isas.push_back({"avx512", cpu::operators_avx512()});
    }
#endif
    return isas;
}

CpuIsa choose_isa(std::string_view name) {
    if (name.empty()) {
        const char* wanted = std::getenv("REEF_CPU_ISA");
        if (wanted)
            name = wanted;
    }
    std::vector<CpuIsa> isas = available_isas();
    if (name.empty())
        return isas.back();
    std::string known;
    for (const CpuIsa& isa : isas) {
        if (isa.name == name)
            return isa;
        known += (known.empty() ? "" : ", ") + isa.name;
    }
    throw ModelError("instruction set '" + std::string(name) + "' cannot be run here; available: " + known);
}

}  // namespace reef
