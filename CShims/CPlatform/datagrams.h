#pragma once
/* Several datagrams with one system call. The structs of sendmmsg and recvmmsg are hidden without _GNU_SOURCE. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { cplatform_most_datagrams = 32 };

/* With the address that it goes to or comes from; of no size for the peer of a connected socket. */
struct cplatform_datagram {
    void *bytes;
    size_t count;
    struct sockaddr_storage address;
    socklen_t address_size;
};

struct cplatform_message { struct msghdr head; unsigned int count; };

/* How many of them were sent; -1 where the first could not be. */
static inline int cplatform_send_datagrams(int fd, const struct cplatform_datagram *all, int count) {
    struct cplatform_message messages[cplatform_most_datagrams];
    struct iovec pieces[cplatform_most_datagrams];
    if (count > cplatform_most_datagrams) count = cplatform_most_datagrams;
    for (int i = 0; i < count; i++) {
        pieces[i] = (struct iovec) { .iov_base = all[i].bytes, .iov_len = all[i].count };
        memset(&messages[i], 0, sizeof messages[i]);
        messages[i].head.msg_iov = &pieces[i];
        messages[i].head.msg_iovlen = 1;
        if (all[i].address_size == 0) continue;
        messages[i].head.msg_name = (void *)&all[i].address;
        messages[i].head.msg_namelen = all[i].address_size;
    }
    return (int)syscall(SYS_sendmmsg, fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Receives at most `count`, each into `room` bytes of the memory, one after the other: how many; -1 where there is
   none. What is longer than its room is cut. */
static inline int cplatform_receive_datagrams(int fd, void *memory, size_t room, struct cplatform_datagram *all, int count) {
    struct cplatform_message messages[cplatform_most_datagrams];
    struct iovec pieces[cplatform_most_datagrams];
    if (count > cplatform_most_datagrams) count = cplatform_most_datagrams;
    for (int i = 0; i < count; i++) {
        all[i].bytes = (char *)memory + (size_t)i * room;
        pieces[i] = (struct iovec) { .iov_base = all[i].bytes, .iov_len = room };
        memset(&messages[i], 0, sizeof messages[i]);
        messages[i].head.msg_iov = &pieces[i];
        messages[i].head.msg_iovlen = 1;
        messages[i].head.msg_name = &all[i].address;
        messages[i].head.msg_namelen = sizeof all[i].address;
    }
    int received = (int)syscall(SYS_recvmmsg, fd, messages, count, MSG_DONTWAIT, NULL);
    for (int i = 0; i < received; i++) {
        all[i].count = messages[i].count;
        all[i].address_size = messages[i].head.msg_namelen;
    }
    return received;
}
