// SPDX-License-Identifier: Apache-2.0
// A set of disjoint byte ranges that merges neighbours.
#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>

namespace reef {

class Ranges {
public:
    void add(uint64_t begin, uint64_t end) {
        auto next = ranges_.upper_bound(begin);
        if (next != ranges_.begin() && std::prev(next)->second >= begin) {
            --next;
            begin = next->first;
        }
        while (next != ranges_.end() && next->first <= end) {
            end = std::max(end, next->second);
            next = ranges_.erase(next);
        }
        ranges_[begin] = end;
    }
    bool contains(uint64_t begin, uint64_t end) const {
        auto next = ranges_.upper_bound(begin);
        return next != ranges_.begin() && std::prev(next)->second >= end;
    }
    const std::map<uint64_t, uint64_t>& all() const { return ranges_; }  // begin -> end

private:
    std::map<uint64_t, uint64_t> ranges_;
};

}  // namespace reef
