/*
 * KVM's ring of coalesced writes: writes that KVM takes without leaving the guest
 * (Documentation/virt/kvm/api.rst, KVM_REGISTER_COALESCED_MMIO).
 *
 * The ring has one consumer at a time: who serves the guest. That is the vCPU's thread whenever it
 * is not in KVM_RUN; it empties the ring after each exit, before the exit is served, so that the
 * order of the ring is the order of the program. While it is in KVM_RUN, a thread of the ring's own
 * looks every COALESCED_TICK_NS, because a guest may run on, or halt, without an exit. That thread
 * never waits for a server: what can't be posted at once stays in the ring.
 *
 * It dozes when nothing can be written: when the vCPU's thread has used no time for a while, it
 * asks it by CONTROL_PROBE whether the processor is halted with nothing to wake it; from then on
 * only control_stir() wakes this thread.
 */
#ifndef KVMSHIM_COALESCED_H
#define KVMSHIM_COALESCED_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum {
    COALESCED_TICK_NS = 900000,
    COALESCED_RING_BYTES = 4096, /* a page, whatever the host's */
    COALESCED_ENTRIES = (COALESCED_RING_BYTES - sizeof(struct kvm_coalesced_mmio_ring)) /
                        sizeof(struct kvm_coalesced_mmio),
};

struct vcpu;

enum coalesced_probe { PROBE_NONE, PROBE_ASKED, PROBE_ASLEEP, PROBE_AWAKE };

struct coalesced {
    struct vcpu *vcpu;
    struct kvm_coalesced_mmio_ring *ring;
    pthread_mutex_t serving; /* held by who serves the guest */
    _Atomic bool closing;
    _Atomic int probe;
    _Atomic bool has_clock;
    clockid_t clock; /* of the vCPU's thread; set before has_clock */
    /* of the ring's thread */
    int64_t used_ns; /* what that clock showed last */
    uint32_t quiet, patience; /* ticks without use, and how many of them make it ask */
    uint32_t asked_at;        /* control.stirs when it asked */
    /* how often it looked, and how many writes it found: for people and tests */
    _Atomic uint64_t ticks, found;
};

/* For the ring that lies at ring, in the vCPU's mapping; NULL when out of memory. */
struct coalesced *coalesced_new(struct vcpu *vcpu, void *ring);
void coalesced_free(struct coalesced *coalesced);

/* -- the vCPU's thread; NULL is fine, as long as there is no ring -- */

/* It is about to serve the guest, or is done with it. */
void coalesced_begin(struct coalesced *coalesced);
void coalesced_end(struct coalesced *coalesced);
/* Serves all writes of the ring; CARRY_ON, or why vcpu_run is to return. */
int coalesced_drain(struct coalesced *coalesced);
/* It has looked, as CONTROL_PROBE asked, whether only an interrupt of ours can wake the guest. */
void coalesced_probed(struct coalesced *coalesced, bool asleep);

/* -- the ring's thread -- */

/* Looks after the ring; returns when coalesced_close() is called. */
void coalesced_serve(struct coalesced *coalesced);
void coalesced_close(struct coalesced *coalesced);

#endif
