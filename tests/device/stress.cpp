// SPDX-License-Identifier: Apache-2.0
// Drives the CPU device through its contract, as the engine does, with every bit and every block checked.
// usage: stress SCENARIO WORKERS ROUNDS [SEED]; exit 0: passed, 77: cannot run here. Also built with ThreadSanitizer.
#include <string>

#include "scenarios.hpp"

int main(int count, char** words) {
    using namespace stress;
    static constexpr std::pair<const char*, Scenario*> scenarios[] = {
        {"every_kernel", every_kernel},
        {"random_instants", random_instants},
        {"redone", redone},
        {"real_time", real_time},
        {"generations", generations},
        {"retirement", retirement},
        {"shield", shield},
        {"gate", gate},
        {"real_time_first", real_time_first},
        {"stale_behind_real_time", stale_behind_real_time},
        {"plain_window", plain_window},
        {"side_by_side", side_by_side},
        {"splits", splits},
        {"uncovered", uncovered},
        {"wakes_for_kernels", wakes_for_kernels},
        {"scheduling_class", scheduling_class},
        {"purse", purse},
        {"no_allocation", no_allocation},
        {"units", units},
        {"units_untreated", units_untreated},
        {"unit_windows", unit_windows},
        {"unit_shield", unit_shield},
        {"same_block", same_block},
        {"sleeping", sleeping},
        {"arming", arming},
        {"urged", urged},
    };
    if (count < 4)
        return 2;
    const Arguments arguments{static_cast<uint32_t>(std::stoul(words[2])), static_cast<uint32_t>(std::stoul(words[3])),
                              count > 4 ? std::stoull(words[4]) : 1};
    for (const auto& [name, scenario] : scenarios) {
        if (words[1] == std::string(name)) {
            scenario(arguments);
            return 0;
        }
    }
    return 2;
}
