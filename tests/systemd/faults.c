/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into the daemon: a model with a Sin then has inputs that make its kernel endless or crash it, on request of
 * whoever fills the tensor. Everything else of the daemon is as it is shipped. */
#define _GNU_SOURCE
#include <dlfcn.h>

#define ENDLESS 1e6
#define CRASH 2e6

double sin(double x) {
    static double (*real)(double);
    if (!real)
        *(void**)&real = dlsym(RTLD_NEXT, "sin");
    if (x == ENDLESS)
        for (;;)
            __asm__ volatile("" ::: "memory");
    if (x == CRASH)
        *(volatile int*)8 = 0;
    return real(x);
}
