#define _GNU_SOURCE /* ppoll */
#include "coalesced.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "access.h"

enum { FIRST_PATIENCE = 8, LAST_PATIENCE = 1024 };

struct coalesced *coalesced_new(struct vcpu *vcpu, void *ring)
{
    struct coalesced *coalesced = calloc(1, sizeof *coalesced);
    if (!coalesced)
        return NULL;
    coalesced->vcpu = vcpu;
    coalesced->ring = ring;
    coalesced->patience = FIRST_PATIENCE;
    pthread_mutex_init(&coalesced->serving, NULL);
    return coalesced;
}

void coalesced_free(struct coalesced *coalesced)
{
    if (!coalesced)
        return;
    pthread_mutex_destroy(&coalesced->serving);
    free(coalesced);
}

/* -- who serves the guest -------------------------------------------------------------------- */

void coalesced_begin(struct coalesced *coalesced)
{
    if (!coalesced)
        return;
    pthread_mutex_lock(&coalesced->serving);
    if (!atomic_load_explicit(&coalesced->has_clock, memory_order_relaxed) &&
        pthread_getcpuclockid(pthread_self(), &coalesced->clock) == 0)
        atomic_store(&coalesced->has_clock, true);
}

void coalesced_end(struct coalesced *coalesced)
{
    if (coalesced)
        pthread_mutex_unlock(&coalesced->serving);
}

/* The ring's oldest write; false if there is none. KVM moves last, behind the entry (smp_wmb). */
static bool oldest(struct coalesced *coalesced, struct vcpu_access *access)
{
    struct kvm_coalesced_mmio_ring *ring = coalesced->ring;
    uint32_t first = ring->first % COALESCED_ENTRIES;
    if (first == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE) % COALESCED_ENTRIES)
        return false;
    struct kvm_coalesced_mmio *entry = &ring->coalesced_mmio[first];
    *access = (struct vcpu_access){
        .space = entry->pio ? 0 : 1,
        .direction = 1,
        .size = (uint8_t)entry->len,
        .elements = 1,
        .address = entry->phys_addr,
        .data = entry->data,
    };
    return true;
}

/* Gives the oldest write's room back to KVM. */
static void done_with_oldest(struct coalesced *coalesced)
{
    struct kvm_coalesced_mmio_ring *ring = coalesced->ring;
    __atomic_store_n(&ring->first, (ring->first + 1) % COALESCED_ENTRIES, __ATOMIC_RELEASE);
    coalesced->vcpu->coalesced_writes++;
}

int coalesced_drain(struct coalesced *coalesced)
{
    struct vcpu_access access;
    int result = CARRY_ON;
    while (coalesced && result == CARRY_ON && oldest(coalesced, &access)) {
        result = access_serve(coalesced->vcpu, &access);
        if (result == CARRY_ON)
            done_with_oldest(coalesced);
    }
    return result;
}

void coalesced_probed(struct coalesced *coalesced, bool asleep)
{
    int asked = PROBE_ASKED;
    if (coalesced)
        atomic_compare_exchange_strong(&coalesced->probe, &asked,
                                       asleep ? PROBE_ASLEEP : PROBE_AWAKE);
}

/* -- the ring's thread ------------------------------------------------------------------------- */

/* Posts what can be posted without waiting; whether there was anything. */
static bool drain_some(struct coalesced *coalesced)
{
    struct vcpu *vcpu = coalesced->vcpu;
    struct vcpu_access access;
    uint64_t found = 0;
    while (oldest(coalesced, &access) && access_may_post(vcpu, &access) &&
           access_serve(vcpu, &access) == CARRY_ON) {
        done_with_oldest(coalesced);
        found++;
    }
    if (found && vcpu->last_link < ROUTE_LINKS) /* late enough */
        link_flush(vcpu->routes->links[vcpu->last_link]);
    atomic_fetch_add_explicit(&coalesced->found, found, memory_order_relaxed);
    return found || oldest(coalesced, &access);
}

/* Whether the vCPU's thread has run since the last look. */
static bool has_run(struct coalesced *coalesced)
{
    struct timespec used;
    if (!atomic_load(&coalesced->has_clock) || clock_gettime(coalesced->clock, &used) != 0)
        return false;
    int64_t used_ns = used.tv_sec * 1000000000LL + used.tv_nsec;
    bool moved = used_ns != coalesced->used_ns;
    coalesced->used_ns = used_ns;
    return moved;
}

/* Dozes unless something was stirred since stirs was counted. */
static void doze_since(struct coalesced *coalesced, uint32_t stirs)
{
    struct control *control = coalesced->vcpu->control;
    struct pollfd roused = { .fd = control->doze_fd, .events = POLLIN };
    atomic_store(&control->dozing, true);
    if (atomic_load(&control->stirs) == stirs && !atomic_load(&coalesced->closing))
        poll(&roused, 1, -1);
    atomic_store(&control->dozing, false);
    eventfd_t drained;
    eventfd_read(control->doze_fd, &drained);
    coalesced->quiet = 0;
    coalesced->patience = FIRST_PATIENCE;
}

/* The vCPU has not run for some ticks: asleep for long, or only for a moment? */
static void ask(struct coalesced *coalesced, uint32_t stirs)
{
    int answer = atomic_load(&coalesced->probe);
    coalesced->quiet = 0;
    if (answer == PROBE_ASKED)
        return; /* it will answer when it gets to run */
    if (answer == PROBE_ASLEEP && stirs == coalesced->asked_at) {
        doze_since(coalesced, stirs);
    } else if (answer == PROBE_NONE) {
        coalesced->asked_at = stirs;
        atomic_store(&coalesced->probe, PROBE_ASKED);
        control_raise(coalesced->vcpu->control, CONTROL_PROBE);
        return;
    } else if (answer == PROBE_AWAKE && coalesced->patience < LAST_PATIENCE) {
        coalesced->patience *= 2;
    }
    atomic_store(&coalesced->probe, PROBE_NONE);
}

static void tick(struct coalesced *coalesced)
{
    uint32_t stirs = atomic_load(&coalesced->vcpu->control->stirs);
    atomic_fetch_add_explicit(&coalesced->ticks, 1, memory_order_relaxed);
    bool outside = pthread_mutex_trylock(&coalesced->serving) != 0;
    if (!outside) {
        bool busy = drain_some(coalesced);
        pthread_mutex_unlock(&coalesced->serving);
        if (busy) {
            coalesced->quiet = 0;
            return;
        }
    }
    if (has_run(coalesced)) {
        coalesced->quiet = 0;
    } else if (++coalesced->quiet >= coalesced->patience) {
        if (outside) /* it waits for a server; it stirs before it enters the guest again */
            doze_since(coalesced, stirs);
        else
            ask(coalesced, stirs);
    }
}

void coalesced_serve(struct coalesced *coalesced)
{
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul); /* of this thread; late is late enough */
    struct pollfd roused = { .fd = coalesced->vcpu->control->doze_fd, .events = POLLIN };
    const struct timespec period = { .tv_nsec = COALESCED_TICK_NS };
    while (!atomic_load(&coalesced->closing)) {
        eventfd_t drained;
        if (ppoll(&roused, 1, &period, NULL) > 0) /* a late word, or the end */
            eventfd_read(roused.fd, &drained);
        tick(coalesced);
    }
}

void coalesced_close(struct coalesced *coalesced)
{
    atomic_store(&coalesced->closing, true);
    eventfd_write(coalesced->vcpu->control->doze_fd, 1);
}
