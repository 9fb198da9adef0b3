/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into the daemon: inputs of a model with a Sin that make its kernel wait, and crash when it is let go on.
 *
 * HELD + i writes "i PID" into $REEF_HELD/begun and waits there for a file go.i.PID, or for one called open. CRASHES + i
 * does the same and then crashes. What each does is a matter of files, so that a test waits for what happened and not for
 * a time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define HELD 1e6
#define CRASHES 2e6
#define MOST 16

static int there(const char* format, int i) {
    char path[512];
    snprintf(path, sizeof path, format, getenv("REEF_HELD"), i, (int)getpid());
    return access(path, F_OK) == 0;
}

static void hold(int i) {
    char text[512];
    snprintf(text, sizeof text, "%s/begun", getenv("REEF_HELD"));
    const int begun = open(text, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    const int length = snprintf(text, sizeof text, "%d %d\n", i, (int)getpid());
    if (write(begun, text, (size_t)length) != length)
        abort();
    close(begun);
    while (!there("%s/go.%d.%d", i) && !there("%s/open", i))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

double sin(double x) {
    static double (*real)(double);
    if (!real)
        *(void**)&real = dlsym(RTLD_NEXT, "sin");
    if (x >= HELD && x < HELD + MOST)
        hold((int)(x - HELD));
    if (x >= CRASHES && x < CRASHES + MOST) {
        hold((int)(x - CRASHES));
        *(volatile int*)8 = 0;
    }
    return real(x);
}
