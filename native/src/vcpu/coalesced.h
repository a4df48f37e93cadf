/*
 * KVM's ring of coalesced writes: writes that KVM takes without leaving the guest
 * (Documentation/virt/kvm/api.rst, KVM_REGISTER_COALESCED_MMIO).
 *
 * The ring has one consumer at a time: who serves the guest. That is the vCPU's thread whenever it
 * is not in KVM_RUN; it empties the ring after each exit, before the exit is served, so that the
 * order of the ring is the order of the program. While it is in KVM_RUN, the poller (ring_poller.h), one
 * thread for all rings of the process, looks every COALESCED_TICK_NS, because a guest may run on, or
 * halt, without an exit. The poller never waits for a server: what can't be posted at once stays in
 * the ring.
 *
 * A ring idles when nothing can be written: when the vCPU's thread has used no time for a while, it
 * is asked by CONTROL_PROBE whether the processor is halted with nothing to wake it; from then on
 * only control_notify() wakes the ring.
 *
 * A guest that writes and then halts until its device answers by interrupt loses by the ring: each
 * write waits for the next look. When that is seen to happen, KVM is told to take no writes for a
 * while, so that they are exits and posted at once.
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
    COALESCED_ZONES = 64, /* that are taken from KVM and given back; further ones it keeps */
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
    _Atomic int probe;
    _Atomic bool has_clock;
    clockid_t clock; /* of the vCPU's thread; set before has_clock */
    struct kvm_coalesced_mmio_zone zones[COALESCED_ZONES];
    uint32_t zone_count;
    /* of the poller */
    struct coalesced *next;
    bool idle;
    bool given_up;     /* KVM takes no writes for now */
    uint32_t late;     /* ticks of late that found writes of a guest that had halted */
    uint32_t resume;   /* ticks until KVM may take writes again */
    uint32_t pause;    /* how many there will be the next time */
    uint32_t punctual; /* ticks since one was late */
    int64_t looked_ns; /* CLOCK_MONOTONIC of the last tick */
    int64_t used_ns;   /* what the vCPU thread's clock showed then */
    uint32_t quiet, spin_wait; /* ticks without use, and how many of them make it ask */
    uint32_t asked_at;        /* control.notifications when it asked */
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
/* Serves all writes of the ring; VCPU_CONTINUE, or why vcpu_run is to return. */
int coalesced_drain(struct coalesced *coalesced);
/* It has looked, as CONTROL_PROBE asked, whether only an interrupt of ours can wake the guest. */
void coalesced_probed(struct coalesced *coalesced, bool asleep);

/* What KVM was told to take, before the poller knows the ring. */
void coalesced_zone(struct coalesced *coalesced, uint64_t address, uint32_t size, bool port);

/* -- the poller -- */

/* A look at the ring; true if it may idle until control_notify(). */
bool coalesced_tick(struct coalesced *coalesced);
/* It is idle no longer. */
void coalesced_woken(struct coalesced *coalesced);

#endif
