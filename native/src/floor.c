#include "floor.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"

int floor_exits(int vcpu_fd, struct kvm_run *run, uint64_t *samples, size_t count)
{
    int64_t before = monotonic_ns();
    for (size_t i = 0; i < count; i++) {
        if (ioctl(vcpu_fd, KVM_RUN, 0) < 0)
            return -1;
        if (run->exit_reason != KVM_EXIT_IO) {
            errno = EPROTO;
            return -1;
        }
        int64_t now = monotonic_ns();
        samples[i] = (uint64_t)(now - before);
        before = now;
    }
    return 0;
}

enum { MAX_BYTES = 8192 };

/* Receives exactly so many bytes; false when the peer is gone. */
static bool take(int fd, uint8_t *buffer, size_t bytes, bool spin)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = recv(fd, buffer + done, bytes - done, spin ? MSG_DONTWAIT : 0);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return false;
    }
    return true;
}

struct far_end {
    int fd;
    size_t request_bytes, answer_bytes;
    bool spin;
};

static void *answer(void *argument)
{
    struct far_end *end = argument;
    uint8_t buffer[MAX_BYTES] = { 0 };
    while (take(end->fd, buffer, end->request_bytes, end->spin))
        if (send(end->fd, buffer, end->answer_bytes, MSG_NOSIGNAL) < 0)
            break;
    return NULL;
}

int floor_pingpong(int near, int far, size_t request_bytes, size_t answer_bytes, int spin,
                   uint64_t *samples, size_t count)
{
    uint8_t buffer[MAX_BYTES] = { 0 };
    struct far_end end = { far, request_bytes, answer_bytes, spin };
    pthread_t thread;
    if (request_bytes > MAX_BYTES || answer_bytes > MAX_BYTES) {
        errno = EINVAL;
        return -1;
    }
    if ((errno = pthread_create(&thread, NULL, answer, &end)))
        return -1;
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++) {
        int64_t before = monotonic_ns();
        if (send(near, buffer, request_bytes, MSG_NOSIGNAL) < 0 ||
            !take(near, buffer, answer_bytes, spin))
            result = -1;
        samples[i] = (uint64_t)(monotonic_ns() - before);
    }
    int error = errno;
    shutdown(near, SHUT_RDWR);
    pthread_join(thread, NULL);
    errno = error;
    return result;
}

static int64_t disarm_and_arm(int epoll_fd, int fd)
{
    struct epoll_event off = { .events = 0 }, on = { .events = EPOLLIN };
    int64_t before = monotonic_ns();
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &off) < 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &on) < 0)
        return -1;
    return monotonic_ns() - before;
}

int floor_disarm(uint64_t *samples, size_t count)
{
    int fd = eventfd(0, EFD_CLOEXEC), epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event on = { .events = EPOLLIN };
    int result = epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &on);
    for (size_t i = 0; i < count && result == 0; i++) {
        int64_t sample = disarm_and_arm(epoll_fd, fd);
        samples[i] = (uint64_t)sample;
        result = sample < 0 ? -1 : 0;
    }
    int error = errno;
    close(fd);
    close(epoll_fd);
    errno = error;
    return result;
}

int floor_irq_line(int vm_fd, uint32_t line, uint64_t *samples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct kvm_irq_level level = { .irq = line, .level = (i & 1) == 0 };
        int64_t before = monotonic_ns();
        if (ioctl(vm_fd, KVM_IRQ_LINE, &level) < 0)
            return -1;
        samples[i] = (uint64_t)(monotonic_ns() - before);
    }
    return 0;
}
