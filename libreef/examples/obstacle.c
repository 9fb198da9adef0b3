/* SPDX-License-Identifier: Apache-2.0 */
/*
 * obstacle: a real-time perception process. It looks for people 20 times a second and must answer within 50 ms.
 *
 *     obstacle PICTURE.ppm [seconds]
 *
 * Every 50 ms a frame arrives. The program announces its request, writes the resized frame straight into shared memory,
 * waits for the answer and decodes it where it lies. Each frame becomes one line of JSON on standard output; latency_ms
 * counts from the moment at which the frame was due, so a late start, a full queue and a slow answer all show in it.
 */
#include "person.h"
#include "picture.h"

#include <errno.h>
#include <reef.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char task[] = "obstacle-detection";
#define SECOND INT64_C(1000000000)
#define PERIOD (SECOND / 20)
#define DEADLINE PERIOD /* an answer after the next frame has arrived is of no use */

static volatile sig_atomic_t stopped;

static void stop(int signal) {
    (void)signal;
    stopped = 1;
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* Sleeps until a point in time, not for a time: delays do not add up, and the phase of the camera is kept. */
static void sleep_until(int64_t when) {
    const struct timespec time = {.tv_sec = when / SECOND, .tv_nsec = when % SECOND};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR && !stopped) {
    }
}

static void report(int64_t frame, int status, int64_t latency, const struct person *people, int count,
                   const struct picture *picture) {
    printf("{\"frame\": %lld, \"status\": %d, \"latency_ms\": %.3f, \"missed\": %s, \"people\": [", (long long)frame,
           status, (double)latency / 1e6, status != 0 || latency > DEADLINE ? "true" : "false");
    for (int i = 0; i < count; i++) {
        printf("%s{\"score\": %.4f, \"center\": [%.2f, %.2f], \"size\": [%.2f, %.2f]}", i > 0 ? ", " : "",
               (double)people[i].score, (double)people[i].x * picture->width, (double)people[i].y * picture->height,
               (double)people[i].width * picture->width, (double)people[i].height * picture->height);
    }
    puts("]}");
}

/* The outputs of a model come in the model's order; a name is the safer way to find one. */
static int output_index(const reef_session *session, const char *name) {
    struct reef_tensor_info info;
    for (uint32_t i = 0; reef_output_info(session, 0, i, &info) == 0; i++) {
        if (strcmp(info.name, name) == 0) {
            return (int)i;
        }
    }
    return -ENOENT;
}

static int watch(reef_session *session, const struct picture *picture, int64_t frames) {
    const int boxes = output_index(session, "boxes"), scores = output_index(session, "scores");
    if (boxes < 0 || scores < 0) {
        fprintf(stderr, "obstacle: the model of task %s has no outputs named boxes and scores\n", task);
        return -ENOENT;
    }
    struct resizer *resizer = resizer_new(picture->width, picture->height, PERSON_INPUT);
    if (resizer == NULL) {
        return -ENOMEM;
    }
    /* One slot for the whole run: this program never has two frames in flight. */
    struct reef_loan loan;
    int rc = reef_loan(session, 0, -1, &loan);

    const int64_t start = (now() / PERIOD + 2) * PERIOD;
    for (int64_t frame = 0; rc == 0 && frame < frames && !stopped; frame++) {
        const int64_t arrival = start + frame * PERIOD;
        sleep_until(arrival);
        reef_announce(session); /* the daemon clears the way while we fill */
        resizer_run(resizer, picture, reef_input(session, &loan, 0));

        const struct reef_options options = {.data_id = (uint64_t)frame, .deadline_ns = (uint64_t)(arrival + DEADLINE)};
        struct reef_completion done = {0};
        const int status = reef_infer(session, &loan, &options, 10 * SECOND, &done);

        struct person people[PERSON_MAX];
        int count = 0;
        if (status == 0) {
            count = person_decode(reef_output(session, &loan, (uint32_t)boxes),
                                  reef_output(session, &loan, (uint32_t)scores), people);
        } else if (status != -ETIME) { /* -ETIME: the deadline passed in the queue; the next frame has its own chance */
            rc = status;
        }
        report(frame, status, now() - arrival, people, count, picture);
    }
    resizer_free(resizer);
    return rc;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: obstacle PICTURE.ppm [seconds]\n");
        return 2;
    }
    const int64_t seconds = argc > 2 ? atoll(argv[2]) : 10;
    setvbuf(stdout, NULL, _IOLBF, 0); /* each frame is seen at once, through a pipe too */
    signal(SIGINT, stop);
    signal(SIGTERM, stop);

    struct picture picture;
    int rc = picture_read(argv[1], &picture);
    if (rc != 0) {
        fprintf(stderr, "obstacle: %s: %s\n", argv[1], strerror(-rc));
        return 1;
    }
    /* Best effort: without the right to it, frames are only as punctual as the machine is idle. */
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 10});

    char reason[REEF_TEXT_MAX] = "";
    const struct reef_open_params params = {
        .size = sizeof params, .task = task, .timeout_ns = 5 * SECOND, .reason = reason};
    reef_session *session = NULL;
    rc = reef_open(&params, &session);
    if (rc == 0) {
        rc = watch(session, &picture, seconds * SECOND / PERIOD);
    }
    if (rc != 0) {
        fprintf(stderr, "obstacle: %s %s\n", reef_strerror(rc), session != NULL ? reef_reason(session) : reason);
    }
    reef_close(session);
    free(picture.rgb);
    return rc == 0 ? 0 : 1;
}
