/* KVM's ring of coalesced writes, with a test in KVM's place. */
#include "guest_rig.h"
#include "vcpu/ring_poller.h"

#include <linux/kvm.h>
#include <sched.h>

struct irq_log irqs;

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    return 0;
}

/* The ring as KVM has it: a page in the vCPU's mapping. */
static union {
    struct kvm_coalesced_mmio_ring ring;
    uint8_t page[COALESCED_RING_BYTES];
} kvm;

static struct rig *set_up_ring_with(struct link_setup setup)
{
    memset(&kvm, 0, sizeof kvm);
    struct rig *rig = set_up_guest_with(setup);
    rig->vcpu.coalesced = coalesced_new(&rig->vcpu, &kvm);
    CHECK(rig->vcpu.coalesced);
    return rig;
}

static struct rig *set_up_ring(void)
{
    struct link_setup setup = usual_setup();
    setup.flush_after_ns = 1000000000;
    return set_up_ring_with(setup);
}

static void tear_down_ring(struct rig *rig)
{
    coalesced_free(rig->vcpu.coalesced);
    tear_down_guest(rig);
}

/* A write of the guest's that KVM takes; false if the ring is full (kvm: coalesced_mmio_write). */
static bool kvm_takes(uint16_t lane, uint8_t value)
{
    uint32_t insert = kvm.ring.last;
    uint32_t next = (insert + 1) % COALESCED_ENTRIES;
    if (next == __atomic_load_n(&kvm.ring.first, __ATOMIC_ACQUIRE))
        return false;
    kvm.ring.coalesced_mmio[insert] = (struct kvm_coalesced_mmio){
        .phys_addr = BASE + lane, .len = 1, .pio = 1, .data = { value },
    };
    __atomic_store_n(&kvm.ring.last, next, __ATOMIC_RELEASE);
    return true;
}

static bool ring_is_empty(void)
{
    return __atomic_load_n(&kvm.ring.first, __ATOMIC_ACQUIRE) == kvm.ring.last;
}

static void start_looking(struct rig *rig)
{
    CHECK_EQUAL(ring_poller_add(rig->vcpu.coalesced), 0);
}

static void stop_looking(struct rig *rig)
{
    ring_poller_remove(rig->vcpu.coalesced);
}

/* Waits until the ring's thread has looked once more, from beginning to end. */
static void look_once_more(struct rig *rig)
{
    uint64_t wanted = atomic_load(&rig->vcpu.coalesced->ticks) + 2;
    while (atomic_load(&rig->vcpu.coalesced->ticks) < wanted)
        sched_yield();
}

/* -- the order ----------------------------------------------------------------------------------- */

static void writes_of_the_ring_travel_in_order_before_what_the_guest_left_for(void)
{
    struct rig *rig = set_up_ring();
    coalesced_begin(rig->vcpu.coalesced);
    for (uint8_t i = 0; i < 3; i++)
        CHECK(kvm_takes(1 + i, i));
    CHECK_EQUAL(coalesced_drain(rig->vcpu.coalesced), VCPU_CONTINUE);
    CHECK_EQUAL(out(rig, 4, 3), VCPU_CONTINUE);
    coalesced_end(rig->vcpu.coalesced);
    CHECK(ring_is_empty());
    CHECK_EQUAL(rig->vcpu.coalesced_writes, 3);
    struct message batch = flushed(rig);
    CHECK_EQUAL(batch.length, 4);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_EQUAL(posted(&batch, i).address, BASE + 1 + i);
        CHECK_EQUAL(posted(&batch, i).value, i);
        CHECK_EQUAL(posted(&batch, i).direction, 1);
    }
    tear_down_ring(rig);
}

static void a_full_ring_is_emptied_around_its_end(void)
{
    struct rig *rig = set_up_ring();
    uint64_t total = 0;
    for (int turn = 0; turn < 3; turn++) {
        while (kvm_takes(1, (uint8_t)total))
            total++;
        coalesced_begin(rig->vcpu.coalesced);
        CHECK_EQUAL(coalesced_drain(rig->vcpu.coalesced), VCPU_CONTINUE);
        coalesced_end(rig->vcpu.coalesced);
    }
    CHECK_EQUAL(total, 3 * (COALESCED_ENTRIES - 1));
    link_flush(rig->bench->link);
    for (uint64_t heard = 0; heard < total;) {
        struct message batch = hear_type(rig->bench, MESSAGE_BATCH);
        for (uint32_t i = 0; i < batch.length; i++)
            CHECK_EQUAL(posted(&batch, i).value, (uint8_t)heard++);
    }
    tear_down_ring(rig);
}

static void a_write_of_the_ring_suspends_leases_as_any_other(void)
{
    struct rig *rig = set_up_ring();
    tell_through(rig, lease_of(5, 0, 0x22));
    CHECK(kvm_takes(3, 1));
    coalesced_begin(rig->vcpu.coalesced);
    CHECK_EQUAL(coalesced_drain(rig->vcpu.coalesced), VCPU_CONTINUE);
    coalesced_end(rig->vcpu.coalesced);
    flushed(rig);
    asked_in(rig, 5, 0x33);
    tear_down_ring(rig);
}

/* -- while the guest runs on ----------------------------------------------------------------------- */

static void a_guest_that_runs_on_is_heard_all_the_same(void)
{
    struct rig *rig = set_up_ring();
    start_looking(rig);
    for (uint8_t i = 0; i < 3; i++) {
        CHECK(kvm_takes(1, i));
        struct message batch = hear_type(rig->bench, MESSAGE_BATCH);
        CHECK_EQUAL(posted(&batch, 0).value, i);
    }
    stop_looking(rig);
    tear_down_ring(rig);
}

static void nobody_touches_the_ring_while_the_vcpu_serves_the_guest(void)
{
    struct rig *rig = set_up_ring();
    start_looking(rig);
    coalesced_begin(rig->vcpu.coalesced);
    CHECK(kvm_takes(1, 1));
    look_once_more(rig);
    CHECK(!ring_is_empty());
    coalesced_end(rig->vcpu.coalesced);
    hear_type(rig->bench, MESSAGE_BATCH);
    stop_looking(rig);
    tear_down_ring(rig);
}

static void what_the_window_has_no_room_for_stays_in_the_ring(void)
{
    struct link_setup setup = usual_setup();
    setup.window = 2;
    struct rig *rig = set_up_ring_with(setup);
    for (uint8_t i = 0; i < 3; i++)
        CHECK(kvm_takes(1, i));
    start_looking(rig);
    CHECK_EQUAL(hear_type(rig->bench, MESSAGE_BATCH).length, 2);
    look_once_more(rig);
    CHECK(!ring_is_empty());
    tell(rig->bench, (struct message){ .type = MESSAGE_ACK });
    CHECK_EQUAL(hear_type(rig->bench, MESSAGE_BATCH).length, 1);
    stop_looking(rig);
    CHECK_EQUAL(rig->bench->link->stats.stalls, 0);
    tear_down_ring(rig);
}

static void a_write_that_needs_a_fence_waits_for_its_turn(void)
{
    struct rig *rig = set_up_ring();
    struct bench *other = set_up();
    rig->routes->links[1] = other->link;
    rig->vcpu.last_link = 1;
    CHECK_EQUAL(post_byte(other, 7), 0); /* to the other server, and not applied there yet */
    CHECK(kvm_takes(1, 1));
    start_event_thread(other);
    start_looking(rig);
    look_once_more(rig);
    CHECK(!ring_is_empty());
    hear_type(other, MESSAGE_BATCH);
    tell(other, (struct message){ .type = MESSAGE_ACK });
    hear_type(rig->bench, MESSAGE_BATCH);
    stop_looking(rig);
    rig->routes->links[1] = NULL;
    tear_down(other);
    tear_down_ring(rig);
}

/* -- idling -------------------------------------------------------------------------------------- */

/* A vCPU that sleeps in KVM_RUN and answers probes, with no time used. */
static void answer_probe(struct rig *rig, bool asleep)
{
    while (!(control_pending(rig->bench->control) & CONTROL_PROBE))
        sched_yield();
    control_clear(rig->bench->control, CONTROL_PROBE);
    coalesced_probed(rig->vcpu.coalesced, asleep);
}

static void wait_until_it_dozes(struct rig *rig)
{
    while (!atomic_load(&rig->bench->control->idling))
        sched_yield();
}

static void nobody_looks_while_the_guest_sleeps(void)
{
    struct rig *rig = set_up_ring();
    start_looking(rig);
    answer_probe(rig, true);
    wait_until_it_dozes(rig);
    control_notify(rig->bench->control);
    CHECK(kvm_takes(1, 1));
    hear_type(rig->bench, MESSAGE_BATCH);
    answer_probe(rig, false); /* a timer of its own may wake it */
    answer_probe(rig, true);
    wait_until_it_dozes(rig);
    stop_looking(rig);
    tear_down_ring(rig);
}

static void an_interrupt_wakes_who_dozes(void)
{
    struct rig *rig = set_up_ring();
    start_looking(rig);
    answer_probe(rig, true);
    wait_until_it_dozes(rig);
    uint64_t ticks = atomic_load(&rig->vcpu.coalesced->ticks);
    tell_through(rig, interrupt_of(1, 1, 1));
    while (atomic_load(&rig->vcpu.coalesced->ticks) < ticks + 2)
        sched_yield();
    stop_looking(rig);
    tear_down_ring(rig);
}

static void an_answer_that_something_has_overtaken_is_not_believed(void)
{
    struct rig *rig = set_up_ring();
    start_looking(rig);
    while (!(control_pending(rig->bench->control) & CONTROL_PROBE))
        sched_yield();
    control_notify(rig->bench->control);
    answer_probe(rig, true);
    answer_probe(rig, true); /* it asks again before it idles */
    wait_until_it_dozes(rig);
    stop_looking(rig);
    tear_down_ring(rig);
}

static void nobody_looks_while_the_vcpu_waits_for_a_server(void)
{
    struct rig *rig = set_up_ring();
    start_looking(rig);
    coalesced_begin(rig->vcpu.coalesced);
    while (!readable(-1, 50) && !atomic_load(&rig->bench->control->idling))
        ; /* asleep nearly all of the time, as the vCPU's thread is that waits */
    coalesced_end(rig->vcpu.coalesced);
    control_notify(rig->bench->control);
    CHECK(kvm_takes(1, 1));
    hear_type(rig->bench, MESSAGE_BATCH);
    stop_looking(rig);
    tear_down_ring(rig);
}

/* -- at the same time ---------------------------------------------------------------------------- */

enum { WRITES = 20000, EVERY = 50 };

/* KVM and the vCPU's thread: it writes in the guest, and leaves it now and then. */
static void *guest_thread(void *argument)
{
    struct rig *rig = argument;
    for (uint32_t i = 0; i < WRITES; i++) {
        bool full = !kvm_takes(1, (uint8_t)i);
        if (!full && i % EVERY)
            continue;
        coalesced_begin(rig->vcpu.coalesced);
        CHECK_EQUAL(coalesced_drain(rig->vcpu.coalesced), VCPU_CONTINUE);
        if (full)
            CHECK_EQUAL(out(rig, 1, (uint8_t)i), VCPU_CONTINUE);
        coalesced_end(rig->vcpu.coalesced);
        control_notify(rig->bench->control);
    }
    coalesced_begin(rig->vcpu.coalesced);
    CHECK_EQUAL(coalesced_drain(rig->vcpu.coalesced), VCPU_CONTINUE);
    coalesced_end(rig->vcpu.coalesced);
    link_flush(rig->bench->link);
    return NULL;
}

static void no_write_is_lost_doubled_or_overtaken(void)
{
    struct link_setup setup = usual_setup();
    setup.window = 256;
    struct rig *rig = set_up_ring_with(setup);
    start_looking(rig);
    pthread_t guest;
    CHECK_EQUAL(pthread_create(&guest, NULL, guest_thread, rig), 0);
    for (uint32_t heard = 0; heard < WRITES;) {
        struct message batch = hear_type(rig->bench, MESSAGE_BATCH);
        for (uint32_t i = 0; i < batch.length; i++)
            CHECK_EQUAL(posted(&batch, i).value, (uint8_t)heard++);
        tell(rig->bench, (struct message){ .type = MESSAGE_ACK });
    }
    CHECK_EQUAL(pthread_join(guest, NULL), 0);
    CHECK(ring_is_empty());
    stop_looking(rig);
    tear_down_ring(rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(writes_of_the_ring_travel_in_order_before_what_the_guest_left_for),
        TEST(a_full_ring_is_emptied_around_its_end),
        TEST(a_write_of_the_ring_suspends_leases_as_any_other),
        TEST(a_guest_that_runs_on_is_heard_all_the_same),
        TEST(nobody_touches_the_ring_while_the_vcpu_serves_the_guest),
        TEST(what_the_window_has_no_room_for_stays_in_the_ring),
        TEST(a_write_that_needs_a_fence_waits_for_its_turn),
        TEST(nobody_looks_while_the_guest_sleeps),
        TEST(an_interrupt_wakes_who_dozes),
        TEST(an_answer_that_something_has_overtaken_is_not_believed),
        TEST(nobody_looks_while_the_vcpu_waits_for_a_server),
        TEST(no_write_is_lost_doubled_or_overtaken),
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
