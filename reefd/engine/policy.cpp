// SPDX-License-Identifier: Apache-2.0
// The policies by name: that of reefd.yaml and of the command line.
#include "policy.hpp"

#include <utility>

namespace reef {
namespace {

constexpr std::pair<const char*, std::unique_ptr<Policy> (*)()> kPolicies[] = {
    {"reef", make_reef_policy},       {"reset", make_reset_policy},           {"wait", make_wait_policy},
    {"streams", make_streams_policy}, {"sequential", make_sequential_policy},
};

}  // namespace

std::unique_ptr<Policy> make_policy(const std::string& name) {
    for (const auto& [known, make] : kPolicies) {
        if (name == known) {
            return make();
        }
    }
    return nullptr;
}

std::vector<std::string> policy_names() {
    std::vector<std::string> names;
    for (const auto& [name, make] : kPolicies) {
        names.emplace_back(name);
    }
    return names;
}

}  // namespace reef
