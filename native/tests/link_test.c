/* The link against a server that a test plays, honest or not. */
#include "fake_server.h"

#include <linux/kvm.h>
#include <stdarg.h>

struct irq_log irqs;

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    const struct kvm_irq_level *level = va_arg(arguments, const struct kvm_irq_level *);
    va_end(arguments);
    CHECK_EQUAL(fd, -1);
    CHECK_EQUAL(request, KVM_IRQ_LINE);
    if (irqs.error) {
        errno = irqs.error;
        return -1;
    }
    CHECK(irqs.count < IRQ_ROOM);
    irqs.set[irqs.count].line = level->irq;
    irqs.set[irqs.count++].level = level->level;
    return 0;
}

/* -- requests ------------------------------------------------------------------------------ */

static void an_in_gets_the_bytes_of_its_feedback(void)
{
    struct bench *bench = set_up();
    struct call call = { 0 };
    begin(&call, bench, IN, 4, link_request);
    struct message request = hear_type(bench, MESSAGE_REQUEST);
    CHECK_EQUAL(request.device_id, 9);
    CHECK_EQUAL(request.direction, IN);
    CHECK_EQUAL(request.address, 0x3f8);
    CHECK_EQUAL(request.size, 4);
    CHECK_EQUAL(request.elements, 1);
    CHECK_EQUAL(request.length, 0);
    tell(bench, feedback_of(request.seq, "abcd", 4));
    CHECK_EQUAL(end(&call), 0);
    CHECK(memcmp(call.data, "abcd", 4) == 0);
    tear_down(bench);
}

static void an_out_carries_its_bytes_and_waits_for_its_finish(void)
{
    struct bench *bench = set_up();
    struct call call = { .data = { 1, 2 } };
    begin(&call, bench, OUT, 2, link_request);
    struct message request = hear_type(bench, MESSAGE_REQUEST);
    CHECK_EQUAL(request.direction, OUT);
    CHECK_EQUAL(request.length, 2);
    CHECK(memcmp(request.data, call.data, 2) == 0);
    tell(bench, finish_of(request.seq));
    CHECK_EQUAL(end(&call), 0);
    tear_down(bench);
}

static void a_request_that_fails_is_refused(void)
{
    struct bench *bench = set_up();
    struct call call = { 0 };
    begin(&call, bench, IN, 1, link_request);
    struct message failed = feedback_of(hear_type(bench, MESSAGE_REQUEST).seq, NULL, 0);
    failed.status = 2;
    tell(bench, failed);
    CHECK_EQUAL(end(&call), LINK_REFUSED);
    CHECK_EQUAL(bench->link->state, LINK_OPEN);
    tear_down(bench);
}

static void a_whole_page_of_string_input_is_one_request(void)
{
    struct bench *bench = set_up();
    struct call call = { .link = bench->link, .function = link_request };
    call.access = access_of(IN, 4, call.data);
    call.access.elements = 1024;
    CHECK_EQUAL(pthread_create(&call.thread, NULL, call_thread, &call), 0);
    uint8_t page[CODEC_MAX_DATA];
    memset(page, 0xa5, sizeof page);
    tell(bench, feedback_of(hear_type(bench, MESSAGE_REQUEST).seq, page, sizeof page));
    CHECK_EQUAL(end(&call), 0);
    CHECK(memcmp(call.data, page, sizeof page) == 0);
    call.access.elements = 1025;
    CHECK_EQUAL(link_request(bench->link, &call.access), LINK_REFUSED);
    tear_down(bench);
}

static void an_answer_that_comes_byte_by_byte_is_taken(void)
{
    struct bench *bench = set_up();
    struct call call = { 0 };
    begin(&call, bench, IN, 1, link_request);
    struct message answer = stamped(bench, feedback_of(hear_type(bench, MESSAGE_REQUEST).seq,
                                                       "x", 1));
    answer.ack = bench->received;
    uint8_t bytes[CODEC_MAX_HEADER];
    size_t length = (size_t)codec_encode(&answer, bytes);
    uint8_t header[4] = { 0, 0, 0, (uint8_t)length };
    for (size_t i = 0; i < 4; i++)
        write_fully(bench, header + i, 1);
    for (size_t i = 0; i < length; i++)
        write_fully(bench, bytes + i, 1);
    CHECK_EQUAL(end(&call), 0);
    CHECK_EQUAL(call.data[0], 'x');
    tear_down(bench);
}

static void every_way_of_waiting_gets_its_answers(void)
{
    for (int mode = LINK_ADAPTIVE; mode <= LINK_BLOCK; mode++) {
        struct link_setup setup = usual_setup();
        setup.wait_mode = mode;
        struct bench *bench = set_up_with(setup);
        start_event_thread(bench);
        for (int i = 0; i < 100; i++) {
            struct call call = { 0 };
            begin(&call, bench, IN, 1, link_request);
            tell(bench, feedback_of(hear_type(bench, MESSAGE_REQUEST).seq, "y", 1));
            CHECK_EQUAL(end(&call), 0);
        }
        CHECK_EQUAL(bench->link->stats.requests, 100);
        CHECK_EQUAL(bench->link->stats.spun + bench->link->stats.slept, 100);
        if (mode == LINK_SPIN)
            CHECK_EQUAL(bench->link->stats.slept, 0);
        tear_down(bench);
    }
}

/* -- posted writes ------------------------------------------------------------------------- */

static void posted_writes_travel_before_the_next_request(void)
{
    struct bench *bench = set_up();
    for (uint8_t value = 1; value <= 3; value++)
        CHECK_EQUAL(post_byte(bench, value), 0);
    struct call call = { 0 };
    begin(&call, bench, IN, 1, link_request);
    struct message batch = hear_type(bench, MESSAGE_BATCH);
    CHECK_EQUAL(batch.length, 3);
    for (uint8_t i = 0; i < 3; i++) {
        struct posted_write write;
        CHECK_EQUAL(codec_decode_write(batch.data + i * CODEC_WRITE_BYTES, &write), 0);
        CHECK_EQUAL(write.value, i + 1);
        CHECK_EQUAL(write.device_id, 9);
        CHECK_EQUAL(write.address, 0x3f8);
        CHECK_EQUAL(write.size, 1);
    }
    tell(bench, feedback_of(hear_type(bench, MESSAGE_REQUEST).seq, "z", 1));
    CHECK_EQUAL(end(&call), 0);
    tear_down(bench);
}

static void a_full_batch_travels_at_once(void)
{
    struct bench *bench = set_up();
    for (int i = 0; i < LINK_BATCH_WRITES; i++)
        CHECK_EQUAL(post_byte(bench, 0), 0);
    CHECK_EQUAL(hear_type(bench, MESSAGE_BATCH).length, LINK_BATCH_WRITES);
    tear_down(bench);
}

static void a_lone_write_travels_when_its_time_is_over(void)
{
    static const uint64_t flush_after_ns[] = { 0, 1, 1000000, 1100000000 };
    for (int i = 0; i < 4; i++) {
        struct link_setup setup = usual_setup();
        setup.flush_after_ns = flush_after_ns[i];
        struct bench *bench = set_up_with(setup);
        start_event_thread(bench);
        CHECK_EQUAL(post_byte(bench, 7), 0);
        CHECK_EQUAL(hear_type(bench, MESSAGE_BATCH).length, 1);
        tear_down(bench);
    }
}

static void a_full_window_stalls_the_guest_until_writes_are_acknowledged(void)
{
    struct link_setup setup = usual_setup();
    setup.window = 4;
    struct bench *bench = set_up_with(setup);
    for (uint8_t value = 0; value < 4; value++)
        CHECK_EQUAL(post_byte(bench, value), 0);
    struct call call = { 0 };
    begin(&call, bench, OUT, 1, post);
    struct message batch = hear_type(bench, MESSAGE_BATCH);
    CHECK_EQUAL(batch.length, 4);
    tell(bench, (struct message){ .type = MESSAGE_ACK });
    CHECK_EQUAL(end(&call), 0);
    CHECK_EQUAL(bench->link->stats.stalls, 1);
    tear_down(bench);
}

static void a_stalled_write_is_lost_with_its_link(void)
{
    struct link_setup setup = usual_setup();
    setup.window = 1;
    struct bench *bench = set_up_with(setup);
    CHECK_EQUAL(post_byte(bench, 1), 0);
    struct call call = { 0 };
    begin(&call, bench, OUT, 1, post);
    hear_type(bench, MESSAGE_BATCH);
    hang_up(bench);
    CHECK_EQUAL(end(&call), LINK_LOST);
    CHECK_EQUAL(post_byte(bench, 1), LINK_LOST);
    tear_down(bench);
}

static int fence(struct link *link, const struct link_access *access)
{
    (void)access;
    return link_fence(link);
}

static void a_fence_waits_until_all_is_applied(void)
{
    struct bench *bench = set_up();
    CHECK_EQUAL(link_fence(bench->link), 0); /* nothing is under way */
    for (int turn = 0; turn < 2; turn++) {
        CHECK_EQUAL(post_byte(bench, 1), 0);
        struct call call = { 0 };
        begin(&call, bench, OUT, 1, fence);
        hear_type(bench, MESSAGE_BATCH);
        struct message ping = hear_type(bench, MESSAGE_PING);
        CHECK(is_silent(bench));
        tell(bench, (struct message){ .type = MESSAGE_PONG, .token = ping.token });
        CHECK_EQUAL(end(&call), 0);
    }
    tear_down(bench);
}

static void a_heartbeat_s_answer_ends_no_fence(void)
{
    struct bench *bench = set_up();
    CHECK_EQUAL(post_byte(bench, 1), 0);
    struct call call = { 0 };
    begin(&call, bench, OUT, 1, fence);
    hear_type(bench, MESSAGE_BATCH);
    struct message ping = hear_type(bench, MESSAGE_PING);
    tell(bench, (struct message){ .type = MESSAGE_PONG, .token = 0 });
    tell(bench, (struct message){ .type = MESSAGE_PING, .token = 1 });
    hear_type(bench, MESSAGE_PONG); /* so it has seen the answer, and waits on */
    tell(bench, (struct message){ .type = MESSAGE_PONG, .token = ping.token });
    CHECK_EQUAL(end(&call), 0);
    tear_down(bench);
}

/* -- what the server says of itself ---------------------------------------------------------- */

static void interrupts_are_applied_in_order_before_the_answer_behind_them(void)
{
    struct bench *bench = set_up();
    struct call call = { 0 };
    begin(&call, bench, OUT, 1, link_request);
    struct message request = hear_type(bench, MESSAGE_REQUEST);
    struct message all[] = {
        stamped(bench, interrupt_of(4, 1, 1)), stamped(bench, interrupt_of(8, 1, 5)),
        stamped(bench, interrupt_of(4, 0, 2)), stamped(bench, interrupt_of(4, 1, 2)),
        stamped(bench, interrupt_of(8, 0, 3)), stamped(bench, finish_of(request.seq)),
    };
    tell_exactly(bench, all, 6);
    CHECK_EQUAL(end(&call), 0);
    CHECK_EQUAL(irqs.count, 3); /* the repeated and the older number are passed over */
    CHECK(irqs.set[0].line == 4 && irqs.set[0].level == 1);
    CHECK(irqs.set[1].line == 8 && irqs.set[1].level == 1);
    CHECK(irqs.set[2].line == 4 && irqs.set[2].level == 0);
    CHECK_EQUAL(bench->link->stats.interrupts, 3);
    tear_down(bench);
}

static void an_interrupt_that_kvm_refuses_breaks_the_link(void)
{
    struct bench *bench = set_up();
    irqs.error = EINVAL;
    struct call call = { 0 };
    begin(&call, bench, OUT, 1, link_request);
    struct message request = hear_type(bench, MESSAGE_REQUEST);
    struct message all[] = { stamped(bench, interrupt_of(4, 1, 1)),
                             stamped(bench, finish_of(request.seq)) };
    tell_exactly(bench, all, 2);
    CHECK_EQUAL(end(&call), LINK_LOST);
    CHECK_EQUAL(bench->link->state, LINK_BROKEN);
    CHECK_EQUAL(bench->link->error_number, EINVAL);
    CHECK(strstr(bench->link->error, "KVM_IRQ_LINE, line 4"));
    tear_down(bench);
}

static void a_ping_is_answered_while_a_vcpu_waits_and_while_none_does(void)
{
    struct bench *bench = set_up();
    start_event_thread(bench);
    tell(bench, (struct message){ .type = MESSAGE_PING, .token = 77 });
    CHECK_EQUAL(hear_type(bench, MESSAGE_PONG).token, 77);
    struct call call = { 0 };
    begin(&call, bench, OUT, 1, link_request);
    struct message request = hear_type(bench, MESSAGE_REQUEST);
    tell(bench, interrupt_of(1, 1, 1));
    tell(bench, (struct message){ .type = MESSAGE_PING, .token = 78 });
    struct message pong = hear_type(bench, MESSAGE_PONG);
    CHECK_EQUAL(pong.token, 78);
    CHECK_EQUAL(pong.ack, 1);
    tell(bench, finish_of(request.seq));
    CHECK_EQUAL(end(&call), 0);
    tear_down(bench);
}

static void what_concerns_python_waits_in_the_inbox(void)
{
    struct bench *bench = set_up();
    start_event_thread(bench);
    CHECK_EQUAL(link_take(bench->link, NULL, 0), 0);
    CHECK(!readable(bench->link->inbox_fd, 0));
    struct message all[] = {
        stamped(bench, (struct message){ .type = MESSAGE_EMIT, .data = (const uint8_t *)"hello",
                                         .length = 5 }),
        stamped(bench, (struct message){ .type = MESSAGE_CONSUMED, .total = 8 }),
        stamped(bench, (struct message){ .type = MESSAGE_EVENT, .kind = 1, .value = 3 }),
    };
    tell_exactly(bench, all, 3);
    CHECK(readable(bench->control->stop_fd, 0) == false);
    uint8_t taken[512];
    size_t used = 0;
    for (int i = 0; i < 3;) { /* a message at a time, however they are found */
        CHECK(readable(bench->link->inbox_fd, AT_MOST_MS));
        used += link_take(bench->link, taken + used, 40);
        struct message message;
        long size = codec_decode(taken, used, &message);
        if (size < 0)
            continue;
        CHECK_EQUAL(message.type, all[i].type);
        CHECK_EQUAL(message.seq, ++i);
        used -= (size_t)size;
        memmove(taken, taken + size, used);
    }
    CHECK_EQUAL(used, 0);
    CHECK_EQUAL(link_inbox_bytes(bench->link), 0);
    tell(bench, (struct message){ .type = MESSAGE_PING, .token = 1 });
    hear_type(bench, MESSAGE_PONG);
    CHECK_EQUAL(control_pending(bench->control), CONTROL_EVENT);
    tear_down(bench);
}

static void the_largest_frame_is_taken(void)
{
    struct bench *bench = set_up();
    start_event_thread(bench);
    static uint8_t text[CODEC_MAX_EMIT];
    static struct message all[63]; /* 63 times 16 KiB and a header each: nearly 1 MiB */
    for (int i = 0; i < 63; i++)
        all[i] = stamped(bench, (struct message){ .type = MESSAGE_EMIT, .data = text,
                                                  .length = sizeof text });
    tell_exactly(bench, all, 63);
    tell(bench, (struct message){ .type = MESSAGE_PING, .token = 1 });
    CHECK_EQUAL(hear_type(bench, MESSAGE_PONG).ack, 63);
    CHECK(link_inbox_bytes(bench->link) > 63 * sizeof text);
    tear_down(bench);
}

static void what_was_read_behind_the_handshake_is_taken(void)
{
    uint8_t rest[256];
    struct message interrupt = { .type = MESSAGE_INTERRUPT, .seq = 11, .vm_id = VM_ID,
                                 .hypervisor = HYPERVISOR, .client_id = CLIENT_ID, .line = 2,
                                 .level = 1, .number = 1 };
    struct message ping = { .type = MESSAGE_PING, .token = 5 };
    size_t length = 4 + (size_t)codec_encode(&interrupt, rest + 4);
    memcpy(rest, (uint8_t[]){ 0, 0, 0, (uint8_t)(length - 4) }, 4);
    long tail = codec_encode(&ping, rest + length + 4);
    memcpy(rest + length, (uint8_t[]){ 0, 0, 0, (uint8_t)tail }, 4);
    length += 4 + (size_t)tail;
    struct link_setup setup = usual_setup();
    setup.received = 10;
    setup.rest = rest;
    setup.rest_length = length - 3; /* the last bytes are still on their way */
    struct bench *bench = set_up_with(setup);
    CHECK_EQUAL(irqs.count, 1);
    start_event_thread(bench);
    bench->sent = 11;
    write_fully(bench, rest + length - 3, 3);
    CHECK_EQUAL(hear_type(bench, MESSAGE_PONG).token, 5);
    tear_down(bench);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(an_in_gets_the_bytes_of_its_feedback),
        TEST(an_out_carries_its_bytes_and_waits_for_its_finish),
        TEST(a_request_that_fails_is_refused),
        TEST(a_whole_page_of_string_input_is_one_request),
        TEST(an_answer_that_comes_byte_by_byte_is_taken),
        TEST(every_way_of_waiting_gets_its_answers),
        TEST(posted_writes_travel_before_the_next_request),
        TEST(a_full_batch_travels_at_once),
        TEST(a_lone_write_travels_when_its_time_is_over),
        TEST(a_full_window_stalls_the_guest_until_writes_are_acknowledged),
        TEST(a_stalled_write_is_lost_with_its_link),
        TEST(a_fence_waits_until_all_is_applied),
        TEST(a_heartbeat_s_answer_ends_no_fence),
        TEST(interrupts_are_applied_in_order_before_the_answer_behind_them),
        TEST(an_interrupt_that_kvm_refuses_breaks_the_link),
        TEST(a_ping_is_answered_while_a_vcpu_waits_and_while_none_does),
        TEST(what_concerns_python_waits_in_the_inbox),
        TEST(the_largest_frame_is_taken),
        TEST(what_was_read_behind_the_handshake_is_taken),
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
