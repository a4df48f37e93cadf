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
 * A thread answers at one end of a connected pair of sockets what the caller sends at the other:
 * request_bytes there, answer_bytes back. Both ends spin, or both block.
 */
int floor_pingpong(int near, int far, size_t request_bytes, size_t answer_bytes, int spin,
                   uint64_t *samples, size_t count);

/* What a wait for an answer spends on keeping the event thread out: two epoll_ctl. */
int floor_disarm(uint64_t *samples, size_t count);

/* Sets a line and clears it again; a sample is one KVM_IRQ_LINE. */
int floor_irq_line(int vm_fd, uint32_t line, uint64_t *samples, size_t count);

#endif
