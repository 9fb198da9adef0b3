// SPDX-License-Identifier: Apache-2.0
// ring_client: the C side of benchmarks. For `reefctl bench ring` it measures one case and writes its round-trip times to
// standard output as uint32 nanoseconds; reefd/bench/ring.py starts it and reads them. `paced` sends requests of any task
// at a rate and writes a struct paced for each; reefd/bench/paced.py reads them. CPU -1: anywhere.
//
//     ring_client raw_spin | raw_eventfd_futex | unix_socket  ROUNDS CPU PEER_CPU
//     ring_client spin | wait  ROUNDS CPU TASK
//     ring_client paced  ROUNDS CPU TASK PERIOD_NS ANNOUNCE_NS
#include "ring.h"

#include <sched.h>
#include <string.h>

void pin_to(int cpu) {
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        check(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
    }
}

static const struct {
    const char* name;
    void (*measure)(uint32_t rounds, uint32_t* times, int peer_cpu);
} peers[] = {{"raw_spin", raw_spin}, {"raw_eventfd_futex", raw_eventfd_futex}, {"unix_socket", unix_socket}};

// Touches every page now, so that no round meets a new one.
static void* room(uint32_t rounds, size_t each) {
    void* times = calloc(rounds, each);
    check(times != NULL, "calloc");
    return memset(times, 1, rounds * each);
}

static int paced(char** argv, uint32_t rounds) {
    struct paced* times = room(rounds, sizeof *times);
    const struct pace pace = {strtoull(argv[5], NULL, 10), strtoull(argv[6], NULL, 10)};
    paced_rounds(argv[4], &pace, rounds, times);
    check(fwrite(times, sizeof *times, rounds, stdout) == rounds, "fwrite");
    free(times);
    return 0;
}

int main(int argc, char** argv) {
    const int is_paced = argc == 7 && strcmp(argv[1], "paced") == 0;
    if (argc != 5 && !is_paced) {
        fprintf(stderr, "usage: ring_client CASE ROUNDS CPU PEER_CPU|TASK [PERIOD_NS ANNOUNCE_NS]\n");
        return 2;
    }
    const uint32_t rounds = (uint32_t)strtoul(argv[2], NULL, 10);
    pin_to(atoi(argv[3]));
    if (is_paced) {
        return paced(argv, rounds);
    }
    uint32_t* times = room(rounds, sizeof *times);

    if (strcmp(argv[1], "spin") == 0 || strcmp(argv[1], "wait") == 0) {
        session_rounds(argv[4], argv[1][0] == 's', rounds, times);
    } else {
        size_t i = 0;
        while (i < sizeof peers / sizeof *peers && strcmp(argv[1], peers[i].name) != 0) {
            i++;
        }
        check(i < sizeof peers / sizeof *peers, argv[1]);
        peers[i].measure(rounds, times, atoi(argv[4]));
    }
    check(fwrite(times, sizeof *times, rounds, stdout) == rounds, "fwrite");
    free(times);
    return 0;
}
