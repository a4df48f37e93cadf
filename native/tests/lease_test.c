/* Leases: what is answered without the server, and when it has to be asked after all. */
#include "guest_rig.h"

struct irq_log irqs;

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    return 0;
}

static void a_read_is_asked_until_it_is_leased_and_after_that_no_more(void)
{
    struct rig *rig = set_up_guest();
    asked_in(rig, 5, 0x11);
    tell_through(rig, lease_of(5, 0, 0x22));
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(leased_in(rig, 5), 0x22);
    tell_through(rig, lease_of(5, 0, 0x33));
    CHECK_EQUAL(leased_in(rig, 5), 0x33);
    struct message revoked = lease_of(5, 0, 0);
    revoked.rule = 0;
    tell_through(rig, revoked);
    asked_in(rig, 5, 0x44);
    CHECK_EQUAL(rig->bench->link->stats.leases, 3);
    CHECK_EQUAL(rig->bench->link->stats.posted, 0);
    tear_down_guest(rig);
}

static void a_read_of_several_bytes_is_asked(void)
{
    struct rig *rig = set_up_guest();
    tell_through(rig, lease_of(5, 0, 0x22));
    tell_through(rig, lease_of(6, 0, 0x22));
    struct asking asking = { 0 };
    begin_access(&asking, rig, 0, 5, 2);
    struct message request = hear_type(rig->bench, MESSAGE_REQUEST);
    CHECK_EQUAL(request.size, 2);
    tell(rig->bench, feedback_of(request.seq, "ab", 2));
    end_access(&asking);
    tear_down_guest(rig);
}

static void a_write_that_matters_suspends_the_lease_until_it_is_acknowledged(void)
{
    struct rig *rig = set_up_guest();
    tell_through(rig, lease_of(5, 0, 0x22));
    CHECK_EQUAL(out(rig, 3, 1), VCPU_CONTINUE);
    flushed(rig);
    tell_through(rig, interrupt_of(1, 1, 1)); /* stands amid the batch: acknowledges nothing */
    struct asking asking = { 0 };
    begin_access(&asking, rig, 0, 5, 1);
    struct message request = hear_type(rig->bench, MESSAGE_REQUEST);
    struct message answer[] = { stamped(rig->bench, lease_of(5, 0, 0x55)),
                                stamped(rig->bench, feedback_of(request.seq, "\x55", 1)) };
    tell_exactly(rig->bench, answer, 2);
    end_access(&asking);
    CHECK_EQUAL(leased_in(rig, 5), 0x55);
    CHECK_EQUAL(out(rig, 3, 2), VCPU_CONTINUE);
    flushed(rig);
    tell(rig->bench, lease_of(5, 0, 0x66));
    acknowledge(rig);
    CHECK_EQUAL(leased_in(rig, 5), 0x66);
    tear_down_guest(rig);
}

static void a_write_that_does_not_matter_suspends_nothing(void)
{
    struct rig *rig = set_up_guest();
    struct message lease = lease_of(5, 0, 0x22);
    lease.unaffected = 1 << 3;
    lease.steady = 1 << 4;
    tell_through(rig, lease);
    CHECK_EQUAL(out(rig, 3, 1), VCPU_CONTINUE);
    CHECK_EQUAL(leased_in(rig, 5), 0x22);
    CHECK_EQUAL(out(rig, 4, 7), VCPU_CONTINUE); /* nobody knows what was there before */
    flushed(rig);
    acknowledge(rig);
    CHECK_EQUAL(leased_in(rig, 5), 0x22);
    CHECK_EQUAL(out(rig, 4, 7), VCPU_CONTINUE);
    CHECK_EQUAL(leased_in(rig, 5), 0x22);
    CHECK_EQUAL(out(rig, 4, 8), VCPU_CONTINUE);
    flushed(rig);
    asked_in(rig, 5, 0x99);
    tear_down_guest(rig);
}

static void a_pair_gives_its_bytes_in_turn_and_the_server_hears_of_it(void)
{
    struct rig *rig = set_up_guest();
    tell_through(rig, lease_of(5, LEASE_PAIR | LEASE_HIGH_NEXT, 0x1234));
    CHECK_EQUAL(leased_in(rig, 5), 0x12);
    CHECK_EQUAL(leased_in(rig, 5), 0x34);
    CHECK_EQUAL(leased_in(rig, 5), 0x12);
    struct message batch = flushed(rig);
    CHECK_EQUAL(batch.length, 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct posted_write read = posted(&batch, i);
        CHECK_EQUAL(read.direction, 0);
        CHECK_EQUAL(read.address, BASE + 5);
        CHECK_EQUAL(read.value, 0);
    }
    tear_down_guest(rig);
}

/* A counter: one count up each nanosecond, held by a write of 0xh to lane 7. */
static struct message counter(uint8_t *term_bytes, uint64_t origin)
{
    struct lease_term term = { .num = 1, .den = 1, .origin = origin, .length = UINT64_MAX,
                               .step = 1, .wrap = 0xffff, .mask = 0xffff };
    struct message lease = lease_of(5, LEASE_PAIR | LEASE_HOLD, 0);
    codec_encode_term(&term, term_bytes);
    lease.rule |= 7 << 16 | 0xf0 << 8;
    lease.data = term_bytes;
    lease.length = 1;
    return lease;
}

static void a_held_value_stays_for_two_reads_and_then_time_goes_on(void)
{
    struct rig *rig = set_up_guest();
    uint8_t term[CODEC_TERM_BYTES];
    rig->bench->control->stopped_ns = 0x1234;
    tell_through(rig, counter(term, 0));
    CHECK_EQUAL(out(rig, 7, 0x05), VCPU_CONTINUE);
    rig->bench->control->stopped_ns = 0x5678;
    CHECK_EQUAL(out(rig, 7, 0x05), VCPU_CONTINUE); /* it is held already */
    CHECK_EQUAL(leased_in(rig, 5), 0x34);
    tell_through(rig, counter(term, 0)); /* what is held is not the server's to change */
    CHECK_EQUAL(leased_in(rig, 5), 0x12);
    CHECK_EQUAL(flushed(rig).length, 4);
    asked_in(rig, 5, 0x78); /* the server did not know of those accesses when it said that */
    tell_through(rig, counter(term, 0));
    CHECK_EQUAL(leased_in(rig, 5), 0x78);
    CHECK_EQUAL(leased_in(rig, 5), 0x56);
    tear_down_guest(rig);
}

static void a_lease_does_not_say_what_is_before_its_origin_or_behind_its_end(void)
{
    struct rig *rig = set_up_guest();
    uint8_t term[CODEC_TERM_BYTES];
    struct message lease = counter(term, 100);
    lease.rule = LEASE_GRANTED;
    lease.until_ns = 200;
    rig->bench->control->stopped_ns = 99;
    tell_through(rig, lease);
    asked_in(rig, 5, 1);
    rig->bench->control->stopped_ns = 199;
    CHECK_EQUAL(leased_in(rig, 5), 99);
    rig->bench->control->stopped_ns = 200;
    asked_in(rig, 5, 2);
    tear_down_guest(rig);
}

static void a_waiting_write_that_holds_leaves_the_value_to_the_server(void)
{
    struct rig *rig = set_up_guest();
    struct message lease = lease_of(5, LEASE_PAIR | LEASE_HOLD, 0x1234);
    lease.rule |= 0 << 16 | 0xf0 << 8;
    tell_through(rig, lease);
    struct asking asking = { 0 };
    begin_access(&asking, rig, 1, 0, 1);
    tell(rig->bench, finish_of(hear_type(rig->bench, MESSAGE_REQUEST).seq));
    end_access(&asking);
    asked_in(rig, 5, 0x21);
    tear_down_guest(rig);
}

/* -- leases that are none ---------------------------------------------------------------------- */

static void broken_by(struct message lease, const char *why)
{
    struct rig *rig = set_up_guest();
    tell(rig->bench, lease);
    CHECK(readable(rig->bench->link->inbox_fd, AT_MOST_MS));
    CHECK_EQUAL(rig->bench->link->state, LINK_VIOLATED);
    if (!strstr(rig->bench->link->error, why))
        fprintf(stderr, "said: %s\nwanted: %s\n", rig->bench->link->error, why);
    CHECK(strstr(rig->bench->link->error, why));
    tear_down_guest(rig);
}

static void broken_by_term(struct lease_term term, const char *why)
{
    uint8_t bytes[CODEC_TERM_BYTES];
    struct message lease = lease_of(5, 0, 0);
    codec_encode_term(&term, bytes);
    lease.data = bytes;
    lease.length = 1;
    broken_by(lease, why);
}

static void a_lease_that_says_nonsense_ends_the_link(void)
{
    struct message elsewhere = lease_of(PORTS, 0, 0), stranger = lease_of(5, 0, 0);
    struct message memory = lease_of(5, 0, 0);
    stranger.device_id++;
    memory.space = 1;
    broken_by(elsewhere, "a lease for an address that may not be leased: device 9, address 0x308");
    broken_by(stranger, "may not be leased: device 10, address 0x305");
    broken_by(memory, "may not be leased");
    broken_by(lease_of(5, 1u << 28, 0), "rules that do not exist");
    broken_by(lease_of(5, LEASE_HOLD | 64 << 16, 0), "held by a lane above 63");
    broken_by_term((struct lease_term){ .num = 1 }, "clock divided by zero");
    broken_by_term((struct lease_term){ .num = 1, .den = 1, .shift = 64 }, "shift above 63");
}

static void one_who_takes_no_leases_is_given_none(void)
{
    struct bench *bench = set_up();
    start_event_thread(bench);
    tell(bench, lease_of(5, 0, 0));
    CHECK(readable(bench->link->inbox_fd, AT_MOST_MS));
    CHECK_EQUAL(bench->link->state, LINK_VIOLATED);
    tear_down(bench);
}

/* -- at the same time ---------------------------------------------------------------------------- */

enum { CHANGES = 3000 };

static void *changing_thread(void *argument)
{
    struct rig *rig = argument;
    for (int i = 0; i < CHANGES; i++) {
        uint8_t bytes[CODEC_TERM_BYTES];
        struct lease_term term = { .num = 1, .den = 1, .length = 1, .period = 1,
                                   .start = (uint64_t)(i & 0xf) << 4, .wrap = 0xff, .mask = 0xff };
        struct message lease = lease_of(5, 0, i & 0xf);
        codec_encode_term(&term, bytes);
        lease.data = bytes;
        lease.length = 1;
        tell(rig->bench, lease);
    }
    return NULL;
}

static void a_lease_is_never_read_half_changed(void)
{
    struct rig *rig = set_up_guest();
    pthread_t server;
    tell_through(rig, lease_of(5, 0, 0));
    CHECK_EQUAL(pthread_create(&server, NULL, changing_thread, rig), 0);
    uint8_t value;
    do {
        value = leased_in(rig, 5);
        CHECK_EQUAL(value >> 4, value & 0xf);
    } while (value != ((CHANGES - 1) & 0xf) * 0x11 ||
             atomic_load(&rig->bench->link->received) != CHANGES + 1);
    CHECK_EQUAL(pthread_join(server, NULL), 0);
    tear_down_guest(rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(a_read_is_asked_until_it_is_leased_and_after_that_no_more),
        TEST(a_read_of_several_bytes_is_asked),
        TEST(a_write_that_matters_suspends_the_lease_until_it_is_acknowledged),
        TEST(a_write_that_does_not_matter_suspends_nothing),
        TEST(a_pair_gives_its_bytes_in_turn_and_the_server_hears_of_it),
        TEST(a_held_value_stays_for_two_reads_and_then_time_goes_on),
        TEST(a_lease_does_not_say_what_is_before_its_origin_or_behind_its_end),
        TEST(a_waiting_write_that_holds_leaves_the_value_to_the_server),
        TEST(a_lease_that_says_nonsense_ends_the_link),
        TEST(one_who_takes_no_leases_is_given_none),
        TEST(a_lease_is_never_read_half_changed),
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
