#define _GNU_SOURCE /* pthread_attr_setaffinity_np */
#include "bench/floor.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vm/control.h"
#include "wait/shm_stream.h"

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

enum {
    PAGE_BYTES = 4096,
    /* KVM_COALESCED_MMIO_MAX, which linux/kvm.h can't say outside the kernel. */
    RING_ENTRIES = (PAGE_BYTES - sizeof(struct kvm_coalesced_mmio_ring)) /
                   sizeof(struct kvm_coalesced_mmio),
};

/* Takes everything out of the ring; the number of writes that were in it. */
static uint32_t drain(struct kvm_coalesced_mmio_ring *ring, uint8_t *sink)
{
    uint32_t first = ring->first, last = __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
    uint32_t taken = 0;
    for (; first != last; taken++) {
        *sink ^= ring->coalesced_mmio[first].data[0];
        first = (first + 1) % RING_ENTRIES;
    }
    __atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
    return taken;
}

int floor_coalesced(int vm_fd, int vcpu_fd, struct kvm_run *run, uint32_t ring_page, uint16_t port,
                    uint64_t *samples, size_t count)
{
    struct kvm_coalesced_mmio_ring *ring = (void *)((uint8_t *)run + ring_page * PAGE_BYTES);
    struct kvm_coalesced_mmio_zone zone = { .addr = port, .size = 1, .pio = 1 };
    uint8_t sink = 0;
    if (ioctl(vm_fd, KVM_REGISTER_COALESCED_MMIO, &zone) < 0)
        return -1;
    int64_t before = monotonic_ns();
    for (size_t i = 0; i < count; i++) {
        if (ioctl(vcpu_fd, KVM_RUN, 0) < 0)
            return -1;
        if (run->exit_reason != KVM_EXIT_IO) {
            errno = EPROTO;
            return -1;
        }
        uint32_t writes = drain(ring, &sink) + 1; /* and the one that found no room */
        int64_t now = monotonic_ns();
        samples[i] = (uint64_t)(now - before) / writes;
        before = now;
    }
    return 0;
}

enum { MAX_BYTES = 8192, LOOKS_TO_AN_ASK = 1 << 16, NAP_US = 20000 };

struct end {
    int fd;
    bool spin;
    struct shm_stream shm; /* used if it has a page */
};

struct far_end {
    struct end end;
    size_t request_bytes, answer_bytes;
};

static ssize_t take_some(struct end *end, uint8_t *buffer, size_t bytes, unsigned look)
{
    if (!end->shm.page)
        return recv(end->fd, buffer, bytes, end->spin ? MSG_DONTWAIT : 0);
    if (end->spin && look % LOOKS_TO_AN_ASK == 0)
        shm_stream_hear(&end->shm);
    return shm_stream_receive(&end->shm, buffer, bytes, end->spin ? 0 : NAP_US);
}

/* Receives exactly so many bytes; false when the peer is gone. */
static bool take(struct end *end, uint8_t *buffer, size_t bytes)
{
    size_t done = 0;
    for (unsigned look = 1; done < bytes; look++) {
        ssize_t n = take_some(end, buffer + done, bytes - done, look);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return false;
    }
    return true;
}

static bool give(struct end *end, const uint8_t *buffer, size_t bytes)
{
    if (!end->shm.page)
        return send(end->fd, buffer, bytes, MSG_NOSIGNAL) >= 0;
    return shm_stream_give(&end->shm, buffer, bytes) == (ssize_t)bytes;
}

static void *answer(void *argument)
{
    struct far_end *far = argument;
    uint8_t buffer[MAX_BYTES] = { 0 };
    while (take(&far->end, buffer, far->request_bytes))
        if (!give(&far->end, buffer, far->answer_bytes))
            break;
    return NULL;
}

static int share(struct end *near, struct end *far)
{
    int memory_fd = shm_stream_make(&near->shm, near->fd);
    if (memory_fd < 0)
        return -1;
    int result = shm_stream_open(&far->shm, far->fd, memory_fd);
    close(memory_fd);
    shm_stream_look(&near->shm);
    if (result == 0)
        shm_stream_look(&far->shm);
    return result;
}

/* A thread on a core of its own choice, or where the caller may run (-1). */
static int start_on(int core, pthread_t *thread, struct far_end *end)
{
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
    if (core >= 0) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET((size_t)core, &cores);
        error = pthread_attr_setaffinity_np(&attributes, sizeof cores, &cores);
    }
    if (!error)
        error = pthread_create(thread, &attributes, answer, end);
    pthread_attr_destroy(&attributes);
    return error;
}

/* Runs to the next port exit; the port, or -1. */
static int next_port(int vcpu_fd, struct kvm_run *run)
{
    if (ioctl(vcpu_fd, KVM_RUN, 0) < 0)
        return -1;
    if (run->exit_reason != KVM_EXIT_IO) {
        errno = EPROTO;
        return -1;
    }
    return run->io.port;
}

static bool one_trip(const struct floor_trip *trip, struct end *near, uint8_t *buffer)
{
    if (trip->vcpu_fd >= 0 && next_port(trip->vcpu_fd, trip->run) < 0)
        return false;
    return give(near, buffer, trip->request_bytes) && take(near, buffer, trip->answer_bytes);
}

int floor_pingpong(const struct floor_trip *trip, uint64_t *samples, size_t count)
{
    uint8_t buffer[MAX_BYTES] = { 0 };
    struct end near = { .fd = trip->near, .spin = trip->spin };
    struct far_end far = { { .fd = trip->far, .spin = trip->spin }, trip->request_bytes,
                           trip->answer_bytes };
    pthread_t thread;
    if (trip->request_bytes > MAX_BYTES || trip->answer_bytes > MAX_BYTES) {
        errno = EINVAL;
        return -1;
    }
    int result = trip->memory ? share(&near, &far.end) : 0;
    if (result == 0 && (errno = start_on(trip->far_core, &thread, &far)))
        result = -1;
    if (result < 0) {
        shm_stream_close(&near.shm);
        shm_stream_close(&far.end.shm);
        return -1;
    }
    for (size_t i = 0; i < count && result == 0; i++) {
        int64_t before = monotonic_ns();
        result = one_trip(trip, &near, buffer) ? 0 : -1;
        samples[i] = (uint64_t)(monotonic_ns() - before);
    }
    int error = errno;
    shutdown(trip->near, SHUT_RDWR);
    pthread_join(thread, NULL);
    shm_stream_close(&near.shm);
    shm_stream_close(&far.end.shm);
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

int floor_irq_delivery(int vm_fd, int vcpu_fd, struct kvm_run *run,
                       const struct floor_interrupt *interrupt, uint64_t *samples, size_t count)
{
    int64_t raised_ns = 0;
    for (size_t done = 0; done < count;) {
        int port = next_port(vcpu_fd, run);
        int64_t now = monotonic_ns();
        if (port < 0)
            return -1;
        if (port == interrupt->mark_port) {
            samples[done++] = (uint64_t)(now - raised_ns);
        } else if (port == interrupt->line_port) {
            uint8_t on = *((uint8_t *)run + run->io.data_offset);
            struct kvm_irq_level level = { .irq = interrupt->line, .level = on };
            raised_ns = now;
            if (ioctl(vm_fd, KVM_IRQ_LINE, &level) < 0)
                return -1;
        }
    }
    return 0;
}
