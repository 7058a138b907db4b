/* Delays system calls at random, for LD_PRELOAD under tests. Code that assumes an order of events
 * fails. DELAY_PER_MILLE of 1000 calls are preceded by a sleep of up to DELAY_MICROSECONDS, and as
 * many are followed by one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

static uint64_t per_mille, microseconds;
static __thread uint64_t state;

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *value = getenv(name);
    return value ? strtoull(value, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void configure(void) {
    per_mille = setting("DELAY_PER_MILLE", 10);
    microseconds = setting("DELAY_MICROSECONDS", 20000);
}

static void delay(void) {
    if (state == 0) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        state = ((uint64_t)(uintptr_t)&state ^ (uint64_t)now.tv_nsec * 2654435761u) | 1;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    if ((state >> 20) % 1000 >= per_mille || microseconds == 0)
        return;
    uint64_t time = (state >> 40) % microseconds;
    struct timespec pause = {time / 1000000, time % 1000000 * 1000};
    int before = errno;
    nanosleep(&pause, NULL);
    errno = before;
}

#define DELAYED(result, name, parameters, arguments) \
    result name parameters {                         \
        static result(*original) parameters;         \
        if (!original)                               \
            original = dlsym(RTLD_NEXT, #name);      \
        delay();                                     \
        result value = original arguments;           \
        delay();                                     \
        return value;                                \
    }

DELAYED(int, accept4, (int fd, struct sockaddr *a, socklen_t *l, int f), (fd, a, l, f))
DELAYED(int, connect, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l))
DELAYED(int, epoll_wait, (int fd, struct epoll_event *e, int n, int t), (fd, e, n, t))
DELAYED(int, shutdown, (int fd, int how), (fd, how))
DELAYED(ssize_t, recv, (int fd, void *to, size_t n, int f), (fd, to, n, f))
DELAYED(ssize_t, send, (int fd, const void *from, size_t n, int f), (fd, from, n, f))
DELAYED(ssize_t, sendmsg, (int fd, const struct msghdr *m, int f), (fd, m, f))
DELAYED(ssize_t, readv, (int fd, const struct iovec *to, int n), (fd, to, n))
DELAYED(ssize_t, writev, (int fd, const struct iovec *from, int n), (fd, from, n))

/* Rust's standard library waits and wakes by futex through this. */
long syscall(long number, ...) {
    static long (*original)(long, ...);
    if (!original)
        original = dlsym(RTLD_NEXT, "syscall");
    va_list rest;
    va_start(rest, number);
    long a[6];
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_futex)
        delay();
    return original(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
