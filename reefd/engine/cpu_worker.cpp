// SPDX-License-Identifier: Apache-2.0
#include "cpu_worker.hpp"

#include <kernel.hpp>
#include <pthread.h>
#include <signal.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdio>

#include "clock.hpp"
#include "cpu_context.hpp"
#include "cpu_place.hpp"
#include "crash.hpp"

namespace reef {
namespace {

constexpr int kLooks = 16;  // at what is near, for one at every queue

void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
}

// Statistics have one writer: no locked instruction.
void add(std::atomic<uint64_t>& counter, uint64_t amount) {
    counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

// Signals that something sends are for the main thread; those that a fault raises here cannot be blocked.
void block_signals() {
    sigset_t signals;
    sigfillset(&signals);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS})
        sigdelset(&signals, fault);
    pthread_sigmask(SIG_SETMASK, &signals, nullptr);
}

}  // namespace

void flush_subnormals() {
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040);
#endif
}

bool CpuShared::something_to_do(uint32_t worker) const {
    const CpuWindow::View now = real_time();
    if (real_time_first(now, worker))
        return now.state == CpuWindow::State::claimable;
    for (const CpuQueue& queue : queues.subspan(1)) {
        const CpuWindow::View window = queue.view();
        if (window.state == CpuWindow::State::claimable && best_effort_may_begin(window.split, worker))
            return true;
    }
    return false;
}

void CpuShared::retire(CpuQueue& queue) {
    // Whatever any worker may do, the first one or the last one may: splits belong to the last.
    if (queue.retire(signals) && (something_to_do(0) || something_to_do(workers - 1)))
        signals.work(UINT32_MAX);
}

CpuWorker::CpuWorker(CpuShared& shared, uint32_t index)
    : shared_(shared), index_(index), turn_(index), served_(shared.queues.data()), scratch_(cpu::kMaxScratch) {}

CpuWorker::~CpuWorker() {
    if (thread_.joinable())
        thread_.join();
}

void CpuWorker::start(int cpu) {
    cpu_ = cpu;
    thread_ = std::thread([this] { main(); });
    started_.wait(false, std::memory_order_acquire);
}

WorkerStatistics CpuWorker::statistics() const {
    return {real_time_ns_.load(std::memory_order_relaxed), best_effort_ns_.load(std::memory_order_relaxed),
            blocks_.load(std::memory_order_relaxed), abandoned_.load(std::memory_order_relaxed),
            left_ns_.load(std::memory_order_relaxed)};
}

void CpuWorker::main() {
    char name[16];
    std::snprintf(name, sizeof name, "reef-cu%u", index_);
    pthread_setname_np(pthread_self(), name);
    block_signals();
    flush_subnormals();
    pin_to(cpu_);
    RealtimeThread scheduling(monotonic_ns());
    class_ = &scheduling;
    if (shared_.fifo_priority > 0)
        real_time_granted_ = scheduling.probe(shared_.fifo_priority);
    started_.store(true, std::memory_order_release);
    started_.notify_one();

    while (!shared_.stopping.load(std::memory_order_relaxed)) {
        if (work() || wait_for_others() || wait_for_expected())
            continue;
        class_->go_to_sleep(monotonic_ns());
        // SYNC SLEEP: an expectation is set before the count of sleepers is read, and looked at here after it was raised.
        shared_.signals.sleep([this] {
            return shared_.something_to_do(index_) || shared_.stopping.load(std::memory_order_seq_cst) ||
                   shared_.expectation->until_ns() > monotonic_ns();
        });
        class_->woke(monotonic_ns());
    }
}

// One visit to one window. False: nothing could be claimed.
bool CpuWorker::work() {
    if (shared_.real_time_first(shared_.real_time(), index_))
        return serve(shared_.queues[kRealTimeQueue], true);
    const uint32_t best_effort = static_cast<uint32_t>(shared_.queues.size()) - 1;
    for (uint32_t i = 0; i < best_effort; i++) {
        uint32_t queue = 1 + (turn_ + i) % best_effort;
        if (!serve(shared_.queues[queue], false))
            continue;
        turn_ = queue;  // the next one's turn
        return true;
    }
    return false;
}

bool CpuWorker::serve(CpuQueue& queue, bool real_time) {
    const uint32_t mark = queue.head();
    CpuWindow& window = queue.window(mark);
    const CpuWindow::View view = window.view(mark);
    if (view.state != CpuWindow::State::claimable)
        return false;
    if (real_time ? shared_.aside(index_, view.split) : !shared_.best_effort_may_begin(view.split, index_))
        return false;
    if (!window.enter(mark))
        return false;
    now_ns_ = monotonic_ns();
    if (real_time)
        class_->enter_real_time(now_ns_);
    served_ = &queue;
    const bool any = run_blocks(queue, window, real_time);
    if (window.leave())
        shared_.retire(queue);
    return any;
}

// False: nothing could be claimed.
bool CpuWorker::run_blocks(CpuQueue& queue, CpuWindow& window, bool real_time) {
    bool any = false;
    while (may_begin(queue, window, real_time)) {
        // A block that was taken must be run, unless the window is stale: nobody else takes it in this window.
        Claim claim = window.take();
        if (!claim.left())
            return any;
        any = true;
        if (claim.kernel == window.first && !claim.copies && window.context->is_done(claim.kernel, claim.next))
            continue;
        for (Next next = Next::begin; next != Next::look;) {
            if (!run_block(queue, window, claim, real_time)) {
                window.close();
                return true;
            }
            next = finish_block(queue, window, claim, real_time);
            if (next == Next::over)
                return true;
        }
    }
    return any;
}

bool CpuWorker::may_begin(const CpuQueue& queue, CpuWindow& window, bool real_time) {
    do {
        if (window.preemptible && queue.epoch() != window.epoch) {
            window.close();
            return false;
        }
        if (real_time)
            return true;
        if (!shared_.best_effort_may_begin(window.split, index_))
            return false;
        // Whoever waited for this processor may have it as soon as this thread is an ordinary one again, for milliseconds.
    } while (class_->enter_best_effort());
    return true;
}

bool CpuWorker::run_block(CpuQueue& queue, CpuWindow& window, const Claim& claim, bool real_time) {
    CpuContext& context = *window.context;
    const CpuKernel& instance = context.model().instances[claim.kernel];
    const cpu::BlockArgs args{context.arguments(instance), claim.next, scratch_.data()};
    const uint64_t begin = now_ns_;
    bool finished = true;
    crash::running = context.crashes();
    if (claim.copies)
        context.copy(claim.kernel, claim.next);
    else if (window.runs_to_end(claim.kernel))
        instance.kernel.run(instance.kernel, args);
    else
        finished = instance.kernel.run_preemptible(instance.kernel, args, {queue.epoch_word(), window.epoch});
    crash::running = nullptr;
    const uint64_t end = now_ns_ = monotonic_ns();
    add(real_time ? real_time_ns_ : best_effort_ns_, end - begin);
    if (real_time)
        class_->spent(end);
    else if (const uint64_t asked = shared_.asked_ns.load(std::memory_order_relaxed); begin <= asked && asked < end)
        left_ns_.store(end, std::memory_order_relaxed);
    if (!finished) {
        add(abandoned_, 1);
        context.block_abandoned();
        return false;
    }
    if (!claim.copies)
        add(blocks_, 1);
    return true;
}

// Next::begin: `claim` is now the first block of what comes next, and is this worker's.
CpuWorker::Next CpuWorker::finish_block(CpuQueue& queue, CpuWindow& window, Claim& claim, bool real_time) {
    CpuContext& context = *window.context;
    if (claim.copies) {
        if (!context.piece_done(claim.kernel, window.runs_to_end(claim.kernel)))
            return Next::look;
        claim = {claim.kernel, false, context.model().instances[claim.kernel].kernel.blocks, 0};
    } else {
        if (!context.block_done(claim.kernel, claim.next))
            return Next::look;
        context.kernel_done(claim.kernel);
        if (claim.kernel + 1 == window.last) {
            window.close();
            return Next::over;
        }
        claim = context.first_claim(claim.kernel + 1, window.runs_to_end(claim.kernel + 1));
    }
    Claim taken = claim;
    const bool goes_on = may_begin(queue, window, real_time);
    taken.next = goes_on;
    window.advance(taken);
    // Of the workers that sleep, only some may be for a split: all look.
    shared_.signals.work(window.split == kNoSplit ? taken.blocks - taken.next : UINT32_MAX);
    return goes_on ? Next::begin : Next::look;
}

// While others run the last blocks of a kernel, its next one is near: cheaper to spin a little than to sleep. Between two
// looks at everything, at what it was busy with and at real-time work.
bool CpuWorker::wait_for_others() const {
    if (shared_.spin_ns == 0)
        return false;
    const uint64_t end = monotonic_ns() + shared_.spin_ns;
    do {
        bool others = false;
        for (const CpuQueue& queue : shared_.queues)
            others |= queue.view().state != CpuWindow::State::absent;
        if (!others)
            return false;
        if (shared_.something_to_do(index_))
            return true;
        for (int i = 0; i < kLooks; i++) {
            relax();
            if (served_->view().state == CpuWindow::State::claimable ||
                shared_.real_time().state == CpuWindow::State::claimable)
                break;
        }
    } while (monotonic_ns() < end);
    return false;
}

// Until what is expected is there, or is not expected any more.
bool CpuWorker::wait_for_expected() {
    uint64_t until = shared_.expectation->until_ns();
    if (until <= monotonic_ns())
        return false;
    class_->enter_best_effort();
    for (bool more = true; until > monotonic_ns() && !shared_.stopping.load(std::memory_order_relaxed);) {
        if (shared_.something_to_do(index_))
            return true;
        more = more && shared_.expectation->bring_near();
        sched_yield();  // to the client that fills its tensor, where it has no other processor
        const uint64_t now = shared_.expectation->until_ns();
        more |= now > until;  // announced again
        until = now;
    }
    return false;
}

}  // namespace reef
