#pragma once
/* What starts the programs of process streams: the calls that Swift hides or has no names for, and the
   code that runs between clone and exec, where no Swift may run. */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

extern int clone(int (*)(void *), void *, int, void *, ...);
extern int pipe2(int *, int);
extern int memfd_create(const char *, unsigned int);

/* --- descriptors that travel -------------------------------------------------------------------- */

/* 7 for what every program may have, and those that it is to inherit beside. */
enum { cplatform_most_inherited = 64, cplatform_most_descriptors = 7 + cplatform_most_inherited,
       cplatform_path_only = 010000000 /* O_PATH */ };

static inline int cplatform_socketpair(int *ends) {
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
}
static inline int cplatform_pipe(int *ends) { return pipe2(ends, O_CLOEXEC); }
static inline int cplatform_memory_file(void) { return memfd_create("causeway-request", MFD_CLOEXEC); }
static inline int cplatform_pipe_size(int fd, int size) { return fcntl(fd, 1031 /* F_SETPIPE_SZ */, size); }
/* How many bytes there are to read; -1 where that cannot be asked. */
static inline int cplatform_readable_bytes(int fd) {
    int count = 0;
    return ioctl(fd, FIONREAD, &count) < 0 ? -1 : count;
}

/* Both ends of a new terminal: the node's, and the program's, which is opened without its name. */
static inline int cplatform_open_terminal(int *ends, unsigned short rows, unsigned short columns) {
    struct winsize size = { .ws_row = rows, .ws_col = columns };
    int locked = 0, theirs = -1, ours = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (ours < 0) return -1;
    if (ioctl(ours, TIOCSPTLCK, &locked) == 0 && ioctl(ours, TIOCSWINSZ, &size) == 0)
        theirs = ioctl(ours, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (theirs < 0) {
        int error = errno;
        close(ours);
        errno = error;
        return -1;
    }
    ends[0] = ours;
    ends[1] = theirs;
    return 0;
}
static inline int cplatform_resize_terminal(int fd, unsigned short rows, unsigned short columns) {
    struct winsize size = { .ws_row = rows, .ws_col = columns };
    return ioctl(fd, TIOCSWINSZ, &size);
}
/* The character that a terminal reads as the end of what is typed; -1 where it takes all as it is. */
static inline int cplatform_end_character(int fd) {
    struct termios terminal;
    if (tcgetattr(fd, &terminal) < 0 || !(terminal.c_lflag & ICANON)) return -1;
    return terminal.c_cc[VEOF] == _POSIX_VDISABLE ? -1 : terminal.c_cc[VEOF];
}

static inline ssize_t cplatform_send(int socket, const void *bytes, size_t size, const int *fds, int count) {
    union { char bytes[CMSG_SPACE(cplatform_most_descriptors * sizeof(int))]; struct cmsghdr head; } control;
    struct iovec data = { (void *)bytes, size };
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };
    if (count < 0 || count > cplatform_most_descriptors) { errno = EINVAL; return -1; }
    if (count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(head), fds, count * sizeof(int));
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* `fds` has room for cplatform_most_descriptors: more cannot come. */
static inline ssize_t cplatform_receive(int socket, void *bytes, size_t size, int *fds, int *count) {
    union { char bytes[CMSG_SPACE(cplatform_most_descriptors * sizeof(int))]; struct cmsghdr head; } control;
    struct iovec data = { bytes, size };
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1,
        .msg_control = control.bytes, .msg_controllen = sizeof control };
    *count = 0;
    ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (received < 0) return received;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS && *count == 0) {
            *count = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(head), *count * sizeof(int));
        }
    return received;
}

/* --- processes ---------------------------------------------------------------------------------- */

static inline int cplatform_be_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }
static inline void cplatform_set_name(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
static inline int cplatform_open_process(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
static inline int cplatform_signal_process(int fd, int number) {
    return (int)syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
}
static inline int cplatform_close_from(unsigned int first) {
    return (int)syscall(SYS_close_range, first, ~0U, 0);
}

/* Signals as a program expects them. What is forked has them so, too. */
static inline void cplatform_reset_signals(void) {
    /* As the kernel has it: libc would keep the two that it uses itself from us. */
    struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } standard = { 0 };
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, &standard, NULL, sizeof standard.mask);
}
/* Where signals are waited for, which are blocked; 0 ends the list. */
static inline int cplatform_signal_descriptor(const int *numbers) {
    sigset_t set;
    sigemptyset(&set);
    for (; *numbers > 0; numbers++) sigaddset(&set, *numbers);
    sigprocmask(SIG_SETMASK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}
/* Takes one signal that has come; 0 where there is none. */
static inline int cplatform_next_signal(int fd) {
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

static inline int cplatform_has_exited(int status) { return WIFEXITED(status); }
static inline int cplatform_exit_status(int status) { return WEXITSTATUS(status); }
static inline int cplatform_end_signal(int status) { return WIFSIGNALED(status) ? WTERMSIG(status) : 0; }
static inline int cplatform_has_dumped_core(int status) { return WCOREDUMP(status) != 0; }

/* Starts a program whose descriptors are `socket` as number 3 and /dev/null as 0 to 2, in the root
   directory, with nothing in its environment. Its signals are its own affair. */
static inline int cplatform_spawn_helper(const char *path, int socket, int *pid) {
    char *arguments[] = { (char *)path, NULL }, *environment[] = { NULL };
    posix_spawn_file_actions_t actions;
    int result = posix_spawn_file_actions_init(&actions);
    if (result) return result;
    for (int number = 0; number < 3 && !result; number++)
        result = posix_spawn_file_actions_addopen(&actions, number, "/dev/null", O_RDWR, 0);
    if (!result) result = posix_spawn_file_actions_adddup2(&actions, socket, 3);
    if (!result) result = posix_spawn(pid, path, &actions, NULL, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    return result;
}

/* --- between clone and exec --------------------------------------------------------------------- */

enum cplatform_step {
    cplatform_step_clone = 1, cplatform_step_session, cplatform_step_descriptors, cplatform_step_cgroup,
    cplatform_step_limit, cplatform_step_nice, cplatform_step_directory, cplatform_step_groups,
    cplatform_step_gid, cplatform_step_uid, cplatform_step_exec, cplatform_step_terminal
};

struct cplatform_limit { int resource; uint64_t soft, hard; };

struct cplatform_launch {
    const char *path;
    char *const *arguments, *const *environment;
    /* The same for /bin/sh, which runs files that name no interpreter. */
    char *const *shell_arguments;
    int stdio[3];
    /* What is to be its controlling terminal; -1 where it has none. */
    int terminal;
    /* The directory to start from, and where to go from there; NULL to stay. */
    int directory;
    const char *change_to;
    /* What it inherits beside those, and by which numbers above 2. */
    int *inherited;
    const int *inherited_as;
    int inherited_count;
    /* Open cgroup.procs files. */
    const int *cgroups;
    int cgroup_count;
    const struct cplatform_limit *limits;
    int limit_count;
    /* -1: as they are. */
    const uint32_t *groups;
    int group_count;
    int64_t uid, gid, mask;
    int has_nice, nice;
    pid_t parent;
    /* What failed; 0 where nothing has. The memory is shared with the new process until it executes. */
    int failed_step, failed_errno;
};

static int cplatform_launched(void *argument) {
    struct cplatform_launch *launch = (struct cplatform_launch *)argument;
    int step = cplatform_step_session;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (setsid() < 0) goto failed;
    step = cplatform_step_terminal;
    if (launch->terminal >= 0) {
        if (ioctl(launch->terminal, TIOCSCTTY, 0) < 0) goto failed;
        /* Who it runs as may open it by its name, too. */
        if (launch->uid >= 0) (void)!fchown(launch->terminal, (uid_t)launch->uid, (gid_t)-1);
    }
    step = cplatform_step_descriptors;
    /* All of them are above 2. */
    for (int number = 0; number < 3; number++)
        if (dup2(launch->stdio[number], number) < 0) goto failed;
    step = cplatform_step_cgroup;
    for (int index = 0; index < launch->cgroup_count; index++)
        if (write(launch->cgroups[index], "0", 1) < 0) goto failed;
    step = cplatform_step_limit;
    for (int index = 0; index < launch->limit_count; index++) {
        struct rlimit limit = { launch->limits[index].soft, launch->limits[index].hard };
        if (setrlimit((__rlimit_resource_t)launch->limits[index].resource, &limit) < 0) goto failed;
    }
    step = cplatform_step_nice;
    if (launch->has_nice && setpriority(PRIO_PROCESS, 0, launch->nice) < 0) goto failed;
    if (launch->mask >= 0) umask((mode_t)launch->mask);
    step = cplatform_step_directory;
    if (fchdir(launch->directory) < 0) goto failed;
    if (launch->change_to && chdir(launch->change_to) < 0) goto failed;
    /* The system calls themselves: those of libc want to tell all threads, and this is none of them. */
    step = cplatform_step_groups;
    if (launch->group_count >= 0 && syscall(SYS_setgroups, launch->group_count, launch->groups) < 0) goto failed;
    step = cplatform_step_gid;
    if (launch->gid >= 0 && syscall(SYS_setgid, (gid_t)launch->gid) < 0) goto failed;
    step = cplatform_step_uid;
    if (launch->uid >= 0 && syscall(SYS_setuid, (uid_t)launch->uid) < 0) goto failed;
    /* After that, which would undo it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != launch->parent) _exit(127);
    step = cplatform_step_descriptors;
    /* Last, as they may take the numbers of what was used so far; and first out of each other's way. */
    int above = 3;
    for (int index = 0; index < launch->inherited_count; index++)
        if (launch->inherited_as[index] >= above) above = launch->inherited_as[index] + 1;
    for (int index = 0; index < launch->inherited_count; index++) {
        launch->inherited[index] = fcntl(launch->inherited[index], F_DUPFD_CLOEXEC, above);
        if (launch->inherited[index] < 0) goto failed;
    }
    for (int index = 0; index < launch->inherited_count; index++)
        if (dup2(launch->inherited[index], launch->inherited_as[index]) < 0) goto failed;
    step = cplatform_step_exec;
    execve(launch->path, launch->arguments, launch->environment);
    if (errno == ENOEXEC) execve("/bin/sh", launch->shell_arguments, launch->environment);
failed:
    launch->failed_step = step;
    launch->failed_errno = errno;
    _exit(127);
}

/* Starts a program and waits until it runs or has failed. For a process of one thread. */
static inline int cplatform_start(struct cplatform_launch *launch, void *stack, size_t size) {
    launch->failed_step = 0;
    launch->parent = getpid();
    int pid = clone(cplatform_launched, (char *)stack + size, CLONE_VM | CLONE_VFORK | SIGCHLD, launch);
    if (pid < 0) {
        launch->failed_step = cplatform_step_clone;
        launch->failed_errno = errno;
    }
    return pid;
}
