#pragma once
/* The few names of libc and the kernel that Swift's Glibc module hides (it is built without
   _GNU_SOURCE), that are variadic, or that are macros. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "datagrams.h"
#include "launch.h"

extern void *memmem(const void *, size_t, const void *, size_t);
extern int pthread_setname_np(pthread_t, const char *);
extern int pthread_getattr_np(pthread_t, pthread_attr_t *);

/* Where the stack of the calling thread has grown to, more or less. */
static inline uintptr_t cplatform_stack_position(void) { return (uintptr_t)__builtin_frame_address(0); }

static inline int cplatform_errno(void) { return errno; }

/* epoll_event is packed and its data a union: neither imports well. */
static inline int cplatform_epoll_ctl(int poller, int operation, int fd, uint32_t events, uint64_t token) {
    struct epoll_event event = { .events = events, .data.u64 = token };
    return epoll_ctl(poller, operation, fd, &event);
}
static inline uint64_t cplatform_epoll_token(const struct epoll_event *event) { return event->data.u64; }
static inline uint32_t cplatform_epoll_events(const struct epoll_event *event) { return event->events; }

/* epoll_pwait2, for less than a second. Kernels before 5.11, and sandboxes that do not know it, wait for whole
   milliseconds. */
static inline int cplatform_epoll_wait(int poller, struct epoll_event *events, int capacity,
                                       int64_t nanoseconds) {
#ifdef SYS_epoll_pwait2
    struct timespec limit = { 0, nanoseconds };
    int count = (int)syscall(SYS_epoll_pwait2, poller, events, capacity, &limit, NULL, 0);
    if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
#endif
    return epoll_wait(poller, events, capacity, (int)((nanoseconds + 999999) / 1000000));
}

extern int ppoll(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static inline int cplatform_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit) {
    return ppoll(fds, count, limit, NULL);
}

static inline int cplatform_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

static inline int cplatform_futex_wait(uint32_t *word, uint32_t expected) {
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}
static inline int cplatform_futex_wait_for(uint32_t *word, uint32_t expected, int64_t nanoseconds) {
    struct timespec limit = { nanoseconds / 1000000000, nanoseconds % 1000000000 };
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, &limit, NULL, 0);
}
static inline int cplatform_futex_wake(uint32_t *word, int count) {
    return (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* An enum that imports as a type of its own. */
enum { cplatform_datagram_type = SOCK_DGRAM };

/* accept4 needs _GNU_SOURCE. The new descriptor does not block and is closed on exec. */
extern int accept4(int, struct sockaddr *, socklen_t *, int);
static inline int cplatform_accept(int listener, struct sockaddr *address, socklen_t *size) {
    return accept4(listener, address, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* fcntl is variadic. */
static inline int cplatform_duplicate(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 3); }

/* dup3 needs _GNU_SOURCE. */
extern int dup3(int, int, int);
static inline int cplatform_replace(int fd, int by) { return dup3(by, fd, O_CLOEXEC); }
static inline int cplatform_status_flags(int fd) { return fcntl(fd, F_GETFL); }
static inline int cplatform_set_status_flags(int fd, int flags) { return fcntl(fd, F_SETFL, flags); }

/* Tells the core that this is a loop that waits for another one. */
static inline void cplatform_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* glibc learns from what a process frees which blocks are worth keeping, so that a plain python3 does
   not ask the kernel for every large object anew. ERTS turns that off when it starts, by setting other
   limits: here they are set to what a python3 arrives at that handles blocks of 8 MB. */
static inline void cplatform_keep_large_blocks(void) {
    mallopt(M_MMAP_THRESHOLD, 8 << 20);
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

/* Not declared for Swift elsewhere. */
static inline void cplatform_give_back_freed_memory(void) { malloc_trim(0); }

static inline int64_t cplatform_monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
