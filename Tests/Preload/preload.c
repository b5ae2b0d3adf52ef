/* A library for LD_PRELOAD: it counts the allocations of each thread, what it copies, and closes in vain; and it has calls of the kernel fail as they may,
 * but hardly ever do. Tests reach it by ctypes.CDLL(None). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- allocations --- */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static __thread long allocations;

/* How many there were on the calling thread. */
long preload_allocations(void) { return allocations; }

void *malloc(size_t size) { allocations++; return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { allocations++; return __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { allocations++; return __libc_realloc(old, size); }

/* --- copies --- */

static __thread long copied;

/* How many bytes the calling thread has had memcpy and memmove copy. */
long preload_copied(void) { return copied; }

/* Byte by byte, and volatile: the compiler would make a call of memcpy of it. */
static void *copy(void *target, const void *source, size_t size) {
    volatile char *to = target;
    const volatile char *from = source;
    copied += (long)size;
    if (to <= from || to >= from + size) {
        for (size_t index = 0; index < size; index++) to[index] = from[index];
    } else {
        while (size-- > 0) to[size] = from[size];
    }
    return target;
}

void *memcpy(void *target, const void *source, size_t size) { return copy(target, source, size); }
void *memmove(void *target, const void *source, size_t size) { return copy(target, source, size); }

/* --- closes --- */

static _Atomic long vain_closes;

/* How often the process has closed what was not open. */
long preload_vain_closes(void) { return atomic_load(&vain_closes); }

/* --- failures --- */

enum call { RECV, SEND, RECVFROM, SENDTO, WATCH, CALLS };

static struct rule {
    _Atomic int fd;     /* of this descriptor */
    _Atomic int error;
    _Atomic long times; /* how often more; negative for ever */
    _Atomic long seen;  /* calls since the rule was made */
} rules[CALLS];

/* Has a call fail for a descriptor, so many times or, where that is negative, until it is told otherwise.
 * WATCH is an epoll_ctl that adds a set to another, whatever its number: what enif_select does with a reactor's. */
void preload_fail(int call, int fd, int error, long times) {
    struct rule *rule = &rules[call];
    atomic_store(&rule->times, 0);
    atomic_store(&rule->fd, fd);
    atomic_store(&rule->error, error);
    atomic_store(&rule->seen, 0);
    atomic_store(&rule->times, times);
}

/* How often the call was tried for that descriptor since then. */
long preload_seen(int call) { return atomic_load(&rules[call].seen); }

static int fails(enum call call, int fd) {
    struct rule *rule = &rules[call];
    if (fd != atomic_load(&rule->fd)) return 0;
    atomic_fetch_add(&rule->seen, 1);
    long times = atomic_load(&rule->times);
    if (times == 0) return 0;
    if (times > 0) atomic_fetch_sub(&rule->times, 1);
    errno = atomic_load(&rule->error);
    return 1;
}

#define REAL(NAME) ((__typeof__(&NAME))dlsym(RTLD_NEXT, #NAME))

int close(int fd) {
    int result = REAL(close)(fd);
    if (result < 0 && errno == EBADF) atomic_fetch_add(&vain_closes, 1);
    return result;
}

ssize_t recv(int fd, void *memory, size_t size, int flags) {
    return fails(RECV, fd) ? -1 : REAL(recv)(fd, memory, size, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    return fails(SEND, fd) ? -1 : REAL(send)(fd, data, size, flags);
}

ssize_t recvfrom(int fd, void *memory, size_t size, int flags, struct sockaddr *from, socklen_t *length) {
    return fails(RECVFROM, fd) ? -1 : REAL(recvfrom)(fd, memory, size, flags, from, length);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    return fails(SENDTO, fd) ? -1 : REAL(sendto)(fd, data, size, flags, to, length);
}

static int is_set(int fd) {
    char path[64], target[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof target - 1);
    return length > 0 && memmem(target, (size_t)length, "[eventpoll]", 11) != NULL;
}

int epoll_ctl(int set, int operation, int fd, struct epoll_event *event) {
    if (atomic_load(&rules[WATCH].times) != 0 && operation != EPOLL_CTL_DEL && is_set(fd)
        && fails(WATCH, atomic_load(&rules[WATCH].fd)))
        return -1;
    return REAL(epoll_ctl)(set, operation, fd, event);
}
