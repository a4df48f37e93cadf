/*
 * Floors for benchmarks: what a KVM exit, a round trip over a socket and an interrupt line cost
 * with nothing else around them. Every function takes one sample (in ns) per repetition.
 */
#ifndef KVMSHIM_FLOOR_H
#define KVMSHIM_FLOOR_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

/* The vCPU must exit with KVM_EXIT_IO each time. 0, or -1 with errno set (EPROTO: other exit). */
int floor_exits(int vcpu_fd, struct kvm_run *run, uint64_t *samples, size_t count);

/*
 * The guest writes to the port for ever. Its writes go into the ring of coalesced accesses, which
 * lies ring_page pages behind run (KVM_CAP_COALESCED_MMIO), and which is emptied when it is full.
 * A sample is the time from one full ring to the next, divided by the writes in between.
 * Source: Documentation/virt/kvm/api.rst, KVM_REGISTER_COALESCED_MMIO.
 */
int floor_coalesced(int vm_fd, int vcpu_fd, struct kvm_run *run, uint32_t ring_page, uint16_t port,
                    uint64_t *samples, size_t count);

/*
 * A thread answers at one end of a connected pair of sockets what the caller sends at the other:
 * request_bytes there, answer_bytes back. Both ends spin, or both block. The thread runs on the
 * core far_core, or wherever the caller may (-1). With a vcpu_fd that is not -1, each repetition
 * begins with an exit as in floor_exits(), and is sampled whole. With memory, bytes go through a
 * shm (shm_stream.h) between the two.
 */
struct floor_trip {
    int near, far;
    size_t request_bytes, answer_bytes;
    int spin, memory, far_core;
    int vcpu_fd;
    struct kvm_run *run;
};
int floor_pingpong(const struct floor_trip *trip, uint64_t *samples, size_t count);

/* Sets a line and clears it again; a sample is one KVM_IRQ_LINE. */
int floor_irq_line(int vm_fd, uint32_t line, uint64_t *samples, size_t count);

/* What a guest does that raises a line and takes its interrupt. */
struct floor_interrupt {
    uint32_t line;
    uint16_t line_port; /* the guest writes the line's level here */
    uint16_t mark_port; /* the first instruction of the line's handler writes here */
};

/* A sample is from the exit that raises the line to the exit of its handler's first instruction. */
int floor_irq_delivery(int vm_fd, int vcpu_fd, struct kvm_run *run,
                       const struct floor_interrupt *interrupt, uint64_t *samples, size_t count);

#endif
