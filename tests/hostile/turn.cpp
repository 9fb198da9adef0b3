// SPDX-License-Identifier: Apache-2.0
// Hostile sessions against the real engine turn, in one process: rings, scheduler and the simulated device, no kernels.
//
// The bytes of an input are a program: append an entry (an honest one, then a few of its bytes changed), move a ring
// index, write anywhere into region C, ring, let the engine take a turn, let time pass. A quarantined session is
// replaced. All the while an honest real-time session beside it must get right answers, and only those.
//
//   turn COUNT SEED [race] random programs until COUNT entries were put before the engine; with -fsanitize=address,undefined.
//                          race: a second thread writes into the same region all the while, between check and use
//   turn_libfuzzer CORPUS  the same programs, guided by coverage (built with -DREEF_LIBFUZZER -fsanitize=fuzzer)
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "crc32c.hpp"
#include "loop.hpp"
#include "region.hpp"
#include "simulated_device.hpp"
#include "task.hpp"

using namespace reef;

namespace {

constexpr uint32_t kSlots = 4;
constexpr uint32_t kTurnBudget = 64;  // best-effort entries that one turn may take

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                       \
            std::abort();                                                                                              \
        }                                                                                                              \
    } while (false)

// Bytes that run out are zeros.
class Program {
public:
    Program(const uint8_t* data, size_t size) : data_(data), size_(size) {}
    bool more() const { return at_ < size_; }
    uint8_t byte() { return more() ? data_[at_++] : 0; }
    uint32_t word() {
        uint32_t value = 0;
        for (int i = 0; i < 4; ++i) {
            value = value << 8 | byte();
        }
        return value;
    }

private:
    const uint8_t* data_;
    size_t size_;
    size_t at_ = 0;
};

// One session, seen from its client.
struct Client {
    Client(Task& task, uint64_t id, uint32_t index) : c_fd(memfd_create("c", 0)), d_fd(memfd_create("d", 0)) {
        const Layout layout(task);
        c_size = layout.header.c_size;
        REQUIRE(ftruncate(c_fd, static_cast<off_t>(c_size)) == 0);
        REQUIRE(ftruncate(d_fd, static_cast<off_t>(layout.header.d_size)) == 0);
        doorbell = eventfd(0, EFD_NONBLOCK);
        int pair[2];
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
        socket = pair[0];
        const SessionPlace place{id, index, 1, c_fd, d_fd, doorbell, pair[1]};
        session = std::make_unique<Session>(task, place, false);
        close(pair[1]);
    }
    ~Client() {
        session.reset();
        for (const int fd : {c_fd, d_fd, doorbell, socket}) {
            close(fd);
        }
    }

    std::byte* c() { return session->c.base(); }
    reef_c_hot& hot() { return *session->c.at<reef_c_hot>(0); }
    reef_sqe& entry(uint32_t index) { return session->c.at<reef_sqe>(offset())[index & (session->entries - 1)]; }
    uint64_t offset() const {
        return static_cast<uint64_t>(reinterpret_cast<const std::byte*>(session->sq) - session->c.base());
    }
    int32_t verdict() const { return session->hot->verdict; }

    // As libreef would write it.
    reef_sqe honest(uint32_t slot) {
        reef_sqe sqe{};
        sqe.slot = slot;
        sqe.generation = session->slots[slot].generation + 1;
        sqe.sequence = tail;
        sqe.user_data = tail + 1000;
        return sqe;
    }
    void publish() { sync::store_release(hot().sq_tail, tail); }
    void ring() { eventfd_write(doorbell, 1); }
    void consume() {
        head = session->hot->cq_tail;
        sync::store_release(hot().cq_head, head);
        char byte;
        while (recv(socket, &byte, 1, MSG_DONTWAIT) == 1) {
        }
    }

    int c_fd, d_fd, doorbell = -1, socket = -1;
    uint64_t c_size = 0;
    uint32_t tail = 0;
    uint32_t head = 0;
    std::unique_ptr<Session> session;
};

class World {
public:
    World() : policy_(make_policy("reef")) {
        LoopOptions options;
        options.max_sessions = 8;
        options.own_thread = false;
        loop_ = std::make_unique<Loop>(device_, *policy_, options);
        loop_->begin();
        real_time_ = make_task(1, true);
        best_effort_ = make_task(2, false);
        with_payload_ = make_task(3, false, true);
        honest_ = attach(*real_time_, 0);
        replace();
    }
    ~World() {
        leave(attacker_);
        leave(honest_);
    }

    void run(Program program) {
        while (program.more()) {
            step(program);
            if (attacker_->verdict() != 0) {
                ++quarantines;
                replace();
            }
        }
        serve();
    }

    uint64_t entries = 0;
    uint64_t quarantines = 0;
    uint64_t served = 0;

    // Another thread's part in a race: a few bytes into the attacker's indices, entries and slots.
    void scribble(std::mt19937_64& random) {
        std::lock_guard lock(region_);
        if (!attacker_) {
            return;
        }
        const uint64_t at = random() % 8 == 0 ? random() % 512 : 4096 + random() % 1024;
        *reinterpret_cast<volatile uint32_t*>(attacker_->c() + at / 4 * 4) = static_cast<uint32_t>(random());
    }

private:
    std::unique_ptr<Task> make_task(uint32_t id, bool real_time, bool payload_crc = false) {
        ModelSpec spec("m", 0);
        const uint32_t x = spec.add_storage("x", StorageKind::input, REEF_UINT8, {8}, 0, {});
        const uint32_t y = spec.add_storage("y", StorageKind::output, REEF_UINT8, {8}, 0, {});
        spec.add_kernel("k", "simulated", {x, y}, {Access::read, Access::write},
                        {{"blocks", int64_t{4}}, {"block_ns", int64_t{10'000}}, {"check_ns", int64_t{1'000}}});
        spec.set_inputs({x});
        spec.set_outputs({y});
        TaskSpec task;
        task.name = real_time ? "rt" : "be";
        task.real_time = real_time;
        task.models = {{"m", device_.load(spec)}, {"echo:64", nullptr}};
        task.slots = kSlots;
        task.crc = !real_time;
        task.payload_crc = payload_crc;
        return std::make_unique<Task>(id, task, device_);
    }

    std::unique_ptr<Client> attach(Task& task, uint32_t index) {
        auto client = std::make_unique<Client>(task, next_id_++, index);
        Command command{.kind = CommandKind::attach, .session = client->session.get()};
        loop_->submit(command);
        return client;
    }

    void leave(std::unique_ptr<Client>& client) {
        Command command{.kind = CommandKind::detach, .session = client->session.get()};
        loop_->submit(command);
        uint32_t index;
        int32_t code;
        for (int i = 0; !loop_->pop_detached(index, code); ++i) {
            REQUIRE(i < 10'000);  // else its requests never end
            pass(1'000'000);
        }
        const reef_stats& stats = client->session->stats;
        REQUIRE(stats.accepted == stats.completed);  // every accepted request ended, once
        std::lock_guard lock(region_);
        client.reset();
        EventRecord event;
        while (loop_->events().pop(event)) {
        }
    }

    void replace() {
        if (attacker_) {
            leave(attacker_);
        }
        Task* const tasks[] = {real_time_.get(), best_effort_.get(), with_payload_.get()};
        Task& task = *tasks[next_id_ % std::size(tasks)];
        real_time_attacker_ = task.spec.real_time;
        auto next = attach(task, 1);
        std::lock_guard lock(region_);
        attacker_ = std::move(next);
    }

    void turn() {
        const uint32_t before = attacker_->session->sq_head;
        loop_->collect_doorbells();
        loop_->turn();
        const uint32_t taken = attacker_->session->sq_head - before;
        REQUIRE(taken <= (real_time_attacker_ ? attacker_->session->entries : kTurnBudget));
        const reef_stats& stats = attacker_->session->stats;
        REQUIRE(stats.accepted - stats.completed <= kSlots);
    }

    void pass(uint64_t ns) {
        const uint64_t target = device_.now_ns() + ns;
        for (;;) {
            loop_->collect_doorbells();
            for (int i = 0; loop_->turn(); ++i) {
                REQUIRE(i < 10'000);  // an engine that never comes to rest
            }
            if (device_.now_ns() >= target) {
                return;
            }
            const uint64_t next = std::min({device_.next_event_ns(), loop_->next_timer_ns(), target});
            device_.advance_to(std::max(next, device_.now_ns() + 1));
        }
    }

    // The honest client's turn: each answer is its own, right, and there in time.
    void serve() {
        Client& client = *honest_;
        for (uint32_t slot = 0; slot < kSlots; ++slot) {
            reef_sqe sqe = client.honest(slot);
            sqe.model = slot & 1;
            const uint64_t stamp = 0x1122334455667788u * (served + 1);
            std::memcpy(client.c() + client.session->inputs_offset + slot * client.session->inputs_stride, &stamp, 8);
            client.entry(client.tail++) = sqe;
            client.publish();
            client.ring();
            const uint64_t start_ns = device_.now_ns();
            for (int i = 0; client.session->hot->cq_tail == client.head; ++i) {
                REQUIRE(i < 100);
                pass(50'000);
            }
            REQUIRE(device_.now_ns() - start_ns < 1'000'000);
            const reef_cqe& cqe = client.session->cq[client.head & (client.session->entries - 1)];
            REQUIRE(client.session->hot->cq_tail == client.head + 1);
            REQUIRE(cqe.status == 0 && cqe.slot == slot && cqe.user_data == sqe.user_data);
            REQUIRE(cqe.sequence == sqe.sequence && cqe.generation == sqe.generation);
            if (sqe.model == 1) {  // the echo
                uint64_t answer;
                const auto at = client.session->outputs_offset + slot * client.session->outputs_stride;
                std::memcpy(&answer, client.session->d.base() + at, 8);
                REQUIRE(answer == stamp);
            }
            client.consume();
            ++served;
        }
        REQUIRE(client.verdict() == 0);
    }

    void append(Program& program) {
        Client& client = *attacker_;
        const uint8_t how = program.byte();
        reef_sqe sqe = client.honest(how & (kSlots - 1));
        sqe.model = how >> 2 & 1;
        sqe.opcode = how >> 3 & 1 ? REEF_OP_CANCEL : REEF_OP_INFER;
        sqe.generation -= sqe.opcode == REEF_OP_CANCEL;
        sqe.flags = (how & 0x10 ? REEF_SQE_LATEST : 0) & (sqe.opcode ? 0 : REEF_SQE_FLAGS);
        if (client.session->task.spec.payload_crc && sqe.opcode == REEF_OP_INFER) {
            const uint64_t at = client.session->inputs_offset + sqe.slot * client.session->inputs_stride;
            sqe.flags |= REEF_SQE_PAYLOAD_CRC;
            sqe.payload_crc = crc32c(client.c() + at, sqe.model == 0 ? 8 : 64);  // and then the input may change
        }
        auto* bytes = reinterpret_cast<uint8_t*>(&sqe);
        const uint32_t changes = how >> 5 & 3;
        for (uint32_t i = 0; i < (how & 0x80 ? changes : 0); ++i) {
            bytes[program.byte() % sizeof sqe] = program.byte();
        }
        if (!(how & 0x80) || changes != 3) {
            sqe.flags |= real_time_attacker_ ? 0 : REEF_SQE_CRC;
            sqe.crc = crc32c(&sqe, sizeof sqe - 4);
        }
        client.entry(client.tail++) = sqe;
        ++entries;
    }

    void step(Program& program) {
        Client& client = *attacker_;
        switch (program.byte() % 16) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
            append(program);
            client.publish();
            break;
        case 5: {  // many at once, more than a turn may take
            const uint32_t count = program.byte() % 9;
            for (uint32_t i = 0; i < count; ++i) {
                append(program);
            }
            client.publish();
            break;
        }
        case 6:
            sync::store_release(client.hot().sq_tail,
                                program.byte() & 1 ? program.word() : client.tail + program.byte());
            break;
        case 7:
            sync::store_release(client.hot().cq_head, program.word());
            break;
        case 8: {
            const uint64_t at = program.word() % (client.c_size - 8);
            for (int i = 0; i < 8; ++i) {
                client.c()[at + i] = std::byte{program.byte()};
            }
            break;
        }
        case 9:  // an entry that was published changes
            reinterpret_cast<uint8_t*>(&client.entry(client.tail - 1 - program.byte() % 8))[program.byte() % 64] =
                program.byte();
            break;
        case 10:
            client.ring();
            break;
        case 11:
            turn();
            break;
        case 12:
            pass(uint64_t{program.byte()} * 1000);
            break;
        case 13:
            client.consume();
            break;
        case 14:
            ++client.hot().announce;
            break;
        case 15:
            if (program.byte() < 16) {
                serve();
            } else {
                turn();
                client.consume();
            }
            break;
        }
    }

    SimulatedDevice device_{{.workers = 2, .realtime = false}};
    std::unique_ptr<Policy> policy_;
    std::unique_ptr<Loop> loop_;
    std::unique_ptr<Task> real_time_, best_effort_, with_payload_;
    std::unique_ptr<Client> honest_, attacker_;
    std::mutex region_;  // the attacker's: it does not go while another thread writes to it
    bool real_time_attacker_ = false;
    uint64_t next_id_ = 1;
};

}  // namespace

#ifdef REEF_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static World world;
    world.run(Program(data, size));
    return 0;
}
#else
int main(int argc, char** argv) {
    const uint64_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000;
    std::mt19937_64 random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
    World world;
    std::atomic<bool> over{false};
    std::thread other;
    if (argc > 3) {
        other = std::thread([&] {
            std::mt19937_64 own(random());
            while (!over) {
                world.scribble(own);
            }
        });
    }
    std::vector<uint8_t> bytes;
    while (world.entries < count) {
        bytes.resize(16 + random() % 512);
        for (uint8_t& byte : bytes) {
            byte = static_cast<uint8_t>(random());
        }
        world.run(Program(bytes.data(), bytes.size()));
    }
    over = true;
    if (other.joinable()) {
        other.join();
    }
    std::printf("%llu entries, %llu quarantines, %llu honest requests served\n",
                static_cast<unsigned long long>(world.entries), static_cast<unsigned long long>(world.quarantines),
                static_cast<unsigned long long>(world.served));
}
#endif
