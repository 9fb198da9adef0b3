// SPDX-License-Identifier: Apache-2.0
// Requests that are on the device with their tensors only, none with a window in flight: outputs on their way, or they are
// to end and the device has not let go of their memory yet.
#pragma once
#include "device.hpp"
#include "intrusive.hpp"
#include "request.hpp"

namespace reef {

class Landings {
public:
    explicit Landings(Device& device) : device_(device) {}

    // All kernels are done. True: so are its outputs; else it is kept here.
    bool deliver(Request& request) {
        if (device_.deliver(*request.context)) {
            return true;
        }
        keep(request);
        return false;
    }
    // `ending` is set. True: nothing of it is read or written any more; else it is kept here until then.
    bool drop(Request& request) {
        if (!device_.drop(*request.context)) {
            keep(request);
            return false;
        }
        if (contains(request)) {
            requests_.remove(request);
        }
        return true;
    }
    // Hands over those that are through, which are not here any more. True when there were any.
    template <class Finish> bool progress(Finish finish) {
        bool any = false;
        for (Request* request = requests_.front(); request;) {
            Request* next = Requests::next(*request);
            if (request->ending != 0 ? device_.drop(*request->context) : device_.deliver(*request->context)) {
                requests_.remove(*request);
                finish(*request);
                any = true;
            }
            request = next;
        }
        return any;
    }

    bool empty() const { return requests_.empty(); }
    static bool contains(const Request& request) { return Requests::contains(request); }

private:
    using Requests = List<Request, &Request::landing_link>;

    void keep(Request& request) {
        if (!contains(request)) {
            requests_.push_back(request);
        }
    }

    Device& device_;
    Requests requests_;
};

}  // namespace reef
