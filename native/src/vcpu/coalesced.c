#include "vcpu/coalesced.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "vcpu/access.h"

enum {
    FIRST_PATIENCE = 8, /* quiet ticks before the vCPU is asked whether it sleeps */
    LAST_PATIENCE = 1024,
    LATE_TICKS = 3, /* such ticks, and KVM takes no more writes for a while: */
    FIRST_PAUSE = 32,
    LAST_PAUSE = 1024,
    PUNCTUAL_TICKS = 2048, /* without a late one, and the pause is short again */
};

struct coalesced *coalesced_new(struct vcpu *vcpu, void *ring)
{
    struct coalesced *coalesced = calloc(1, sizeof *coalesced);
    if (!coalesced)
        return NULL;
    coalesced->vcpu = vcpu;
    coalesced->ring = ring;
    coalesced->spin_wait = FIRST_PATIENCE;
    coalesced->pause = FIRST_PAUSE;
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
        .direction = DIRECTION_OUT,
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
    int result = VCPU_CONTINUE;
    while (coalesced && result == VCPU_CONTINUE && oldest(coalesced, &access)) {
        result = access_serve(coalesced->vcpu, &access);
        if (result == VCPU_CONTINUE)
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

/* -- whether it pays ----------------------------------------------------------------------------- */

void coalesced_zone(struct coalesced *coalesced, uint64_t address, uint32_t size, bool port)
{
    if (coalesced->zone_count < COALESCED_ZONES)
        coalesced->zones[coalesced->zone_count++] =
            (struct kvm_coalesced_mmio_zone){ .addr = address, .size = size, .pio = port };
}

/* A zone that KVM does not take is one whose writes are exits, which is just as good. */
static void let_kvm_take(struct coalesced *coalesced, bool take)
{
    unsigned long request = take ? KVM_REGISTER_COALESCED_MMIO : KVM_UNREGISTER_COALESCED_MMIO;
    for (uint32_t i = 0; i < coalesced->zone_count; i++)
        ioctl(coalesced->vcpu->control->vm_fd, request, &coalesced->zones[i]);
    coalesced->given_up = !take;
    coalesced->late = coalesced->punctual = 0;
}

/* found: there were writes in the ring; idle: the guest was halted for most of the time. */
static void judge(struct coalesced *coalesced, bool found, bool idle)
{
    if (coalesced->given_up) {
        if (--coalesced->resume == 0)
            let_kvm_take(coalesced, true);
    } else if (!found || !idle) {
        coalesced->late = found ? 0 : coalesced->late;
        if (++coalesced->punctual >= PUNCTUAL_TICKS)
            coalesced->pause = FIRST_PAUSE;
    } else if (coalesced->punctual = 0, ++coalesced->late >= LATE_TICKS) {
        let_kvm_take(coalesced, false);
        coalesced->resume = coalesced->pause;
        coalesced->pause *= coalesced->pause < LAST_PAUSE ? 2 : 1;
    }
}

/* -- the poller's looks ---------------------------------------------------------------------------- */

/* Posts what can be posted without waiting; how many there were. */
static uint64_t drain_some(struct coalesced *coalesced)
{
    struct vcpu *vcpu = coalesced->vcpu;
    struct vcpu_access access;
    uint64_t found = 0;
    while (oldest(coalesced, &access) && access_may_post(vcpu, &access) &&
           access_serve(vcpu, &access) == VCPU_CONTINUE) {
        done_with_oldest(coalesced);
        found++;
    }
    if (found && vcpu->last_link < ROUTE_LINKS) /* late enough */
        link_flush(vcpu->routes->links[vcpu->last_link]);
    atomic_fetch_add_explicit(&coalesced->found, found, memory_order_relaxed);
    return found;
}

/* For how long the vCPU's thread has run since the last look, in parts of the time since, of 256. */
static uint32_t activity(struct coalesced *coalesced)
{
    struct timespec used;
    if (!atomic_load(&coalesced->has_clock) || clock_gettime(coalesced->clock, &used) != 0)
        return 0;
    int64_t used_ns = used.tv_sec * 1000000000LL + used.tv_nsec, now_ns = monotonic_ns();
    int64_t ran_ns = used_ns - coalesced->used_ns, passed_ns = now_ns - coalesced->looked_ns;
    coalesced->used_ns = used_ns;
    coalesced->looked_ns = now_ns;
    if (ran_ns <= 0)
        return 0;
    return ran_ns >= passed_ns ? 256 : (uint32_t)(ran_ns * 256 / passed_ns) + 1;
}

/* The vCPU has not run for some ticks: asleep for long, or only for a moment? True: for long. */
static bool sleeps_for_long(struct coalesced *coalesced, uint32_t notifications)
{
    int answer = atomic_load(&coalesced->probe);
    coalesced->quiet = 0;
    if (answer == PROBE_ASKED)
        return false; /* it will answer when it gets to run */
    if (answer == PROBE_NONE) {
        coalesced->asked_at = notifications;
        atomic_store(&coalesced->probe, PROBE_ASKED);
        control_raise(coalesced->vcpu->control, CONTROL_PROBE);
        return false;
    }
    atomic_store(&coalesced->probe, PROBE_NONE);
    if (answer == PROBE_AWAKE && coalesced->spin_wait < LAST_PATIENCE)
        coalesced->spin_wait *= 2;
    return answer == PROBE_ASLEEP && notifications == coalesced->asked_at;
}

/* Idles unless something was notified since notifications was counted. */
static bool idle_since(struct coalesced *coalesced, uint32_t notifications)
{
    struct control *control = coalesced->vcpu->control;
    atomic_store(&control->idling, true);
    coalesced->idle = atomic_load(&control->notifications) == notifications;
    if (!coalesced->idle)
        coalesced_woken(coalesced);
    return coalesced->idle;
}

void coalesced_woken(struct coalesced *coalesced)
{
    eventfd_t drained;
    atomic_store(&coalesced->vcpu->control->idling, false);
    eventfd_read(coalesced->vcpu->control->idle_fd, &drained);
    coalesced->idle = false;
    coalesced->quiet = 0;
    coalesced->spin_wait = FIRST_PATIENCE;
}

bool coalesced_tick(struct coalesced *coalesced)
{
    uint32_t notifications = atomic_load(&coalesced->vcpu->control->notifications);
    atomic_fetch_add_explicit(&coalesced->ticks, 1, memory_order_relaxed);
    bool outside = pthread_mutex_trylock(&coalesced->serving) != 0, busy = false, left = false;
    if (!outside) {
        struct vcpu_access access;
        busy = drain_some(coalesced) > 0;
        left = oldest(coalesced, &access);
        pthread_mutex_unlock(&coalesced->serving);
    }
    uint32_t active = activity(coalesced);
    judge(coalesced, busy, active < 128);
    if (busy || left || active) {
        coalesced->quiet = 0;
        return false;
    }
    if (++coalesced->quiet < coalesced->spin_wait)
        return false;
    /* outside: it waits for a server, and notifications before it enters the guest again */
    return (outside || sleeps_for_long(coalesced, notifications)) && idle_since(coalesced, notifications);
}
