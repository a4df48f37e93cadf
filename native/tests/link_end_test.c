/* How a link ends: a server that breaks the rules, goes away or falls silent; a stop; a full pipe. */
#include "fake_server.h"

#include <stdarg.h>

struct irq_log irqs;

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    return 0;
}

static int feed(struct bench *bench, uint32_t length)
{
    static uint8_t bytes[CODEC_MAX_FEED + 1];
    struct message message = { .type = MESSAGE_FEED, .data = bytes, .length = length };
    return link_send(bench->link, &message);
}

/* -- rules broken ---------------------------------------------------------------------------- */

/* Sends what breaks a rule to a client that waits for the answer to request 1. */
typedef void breach(struct bench *bench);

static void broken_by(breach *break_rule, const char *why)
{
    for (int with_event_thread = 0; with_event_thread < 2; with_event_thread++) {
        struct bench *bench = set_up();
        if (with_event_thread)
            start_event_thread(bench);
        struct call call = { 0 };
        begin(&call, bench, IN, 1, link_request);
        hear_type(bench, MESSAGE_REQUEST);
        break_rule(bench);
        CHECK_EQUAL(end(&call), LINK_LOST);
        CHECK_EQUAL(bench->link->state, LINK_VIOLATED);
        CHECK_EQUAL(bench->link->error_number, EPROTO);
        if (!strstr(bench->link->error, why))
            fprintf(stderr, "said: %s\nwanted: %s\n", bench->link->error, why);
        CHECK(strstr(bench->link->error, why));
        CHECK(control_pending(bench->control) & CONTROL_LINK);
        CHECK(readable(bench->link->inbox_fd, AT_MOST_MS));
        tear_down(bench);
    }
}

static void tell_changed(struct bench *bench, struct message message)
{
    tell_exactly(bench, &message, 1);
}

static void skips_a_number(struct bench *bench)
{
    struct message message = stamped(bench, feedback_of(1, "a", 1));
    message.seq++;
    tell_changed(bench, message);
}

static void names_another_vm(struct bench *bench)
{
    struct message message = stamped(bench, feedback_of(1, "a", 1));
    message.vm_id++;
    tell_changed(bench, message);
}

static void names_another_hypervisor(struct bench *bench)
{
    struct message message = stamped(bench, feedback_of(1, "a", 1));
    message.hypervisor++;
    tell_changed(bench, message);
}

static void names_another_client(struct bench *bench)
{
    struct message message = stamped(bench, feedback_of(1, "a", 1));
    message.client_id++;
    tell_changed(bench, message);
}

static void answers_another_request(struct bench *bench)
{
    tell(bench, feedback_of(2, "a", 1));
}

static void acknowledges_what_was_not_sent(struct bench *bench)
{
    struct message message = stamped(bench, feedback_of(1, "a", 1));
    message.ack = 2;
    tell_changed(bench, message);
}

static void acks_what_was_not_sent(struct bench *bench)
{
    tell_changed(bench, (struct message){ .type = MESSAGE_ACK, .ack = 2 });
}

static void answers_with_too_few_bytes(struct bench *bench)
{
    tell(bench, feedback_of(1, "", 0));
}

static void answers_with_too_many_bytes(struct bench *bench)
{
    tell(bench, feedback_of(1, "ab", 2));
}

static void finishes_an_in(struct bench *bench)
{
    tell(bench, finish_of(1));
}

static void drives_a_line_that_is_not_there(struct bench *bench)
{
    tell(bench, interrupt_of(LINK_LINES, 1, 1));
}

static void says_what_only_clients_say(struct bench *bench)
{
    tell_changed(bench, (struct message){ .type = MESSAGE_CLOCK, .seq = 1 });
}

static void sends_an_empty_frame(struct bench *bench)
{
    write_fully(bench, (uint8_t[]){ 0, 0, 0, 0 }, 4);
}

static void sends_too_long_a_frame(struct bench *bench)
{
    write_fully(bench, (uint8_t[]){ 0, 0x10, 0, 1 }, 4);
}

static void sends_the_longest_length(struct bench *bench)
{
    write_fully(bench, (uint8_t[]){ 0xff, 0xff, 0xff, 0xff }, 4);
}

static void sends_no_msgpack(struct bench *bench)
{
    put_frame(bench, (const uint8_t *)"\xc1", 1);
}

static void sends_an_unknown_type(struct bench *bench)
{
    put_frame(bench, (const uint8_t *)"\x92\x63\x80", 3);
}

static void sends_a_greeting(struct bench *bench)
{
    put_frame(bench, (const uint8_t *)"\x92\x02\x80", 3);
}

static void cuts_a_message_short(struct bench *bench)
{
    put_frame(bench, (const uint8_t *)"\x92\x09\xcf", 3);
}

static void sends_another_width(struct bench *bench)
{
    put_frame(bench, (const uint8_t *)"\x92\x09\xce\0\0\0\0\0\0\0\0", 11);
}

static void leaves_something_behind_a_message(struct bench *bench)
{
    put_frame(bench, (const uint8_t *)"\x92\x09\xcf\0\0\0\0\0\0\0\0\0", 12);
}

static void sends_too_long_a_tail(struct bench *bench)
{
    struct message message = stamped(bench, feedback_of(1, "", 0));
    uint8_t bytes[CODEC_MAX_HEADER];
    long size = codec_encode(&message, bytes);
    memcpy(bytes + size - 4, (uint8_t[]){ 0xff, 0xff, 0xff, 0xff }, 4);
    put_frame(bench, bytes, (size_t)size);
}

static void a_server_that_breaks_a_rule_is_left(void)
{
    broken_by(skips_a_number, "sequence number: got 2, expected 1");
    broken_by(names_another_vm, "VM identifier: got 5, expected 4");
    broken_by(names_another_hypervisor, "hypervisor identifier: got 2, expected 1");
    broken_by(names_another_client, "client identifier: got 6, expected 5");
    broken_by(answers_another_request, "not awaited: got 2, expected 1");
    broken_by(acknowledges_what_was_not_sent, "acknowledged number: got 2, expected 1");
    broken_by(acks_what_was_not_sent, "acknowledged number: got 2, expected 1");
    broken_by(answers_with_too_few_bytes, "bytes in a feedback: got 0, expected 1");
    broken_by(answers_with_too_many_bytes, "bytes in a feedback: got 2, expected 1");
    broken_by(finishes_an_in, "bytes in a feedback: got 0, expected 1");
    broken_by(drives_a_line_that_is_not_there, "line out of range: got 1024, expected 1023");
    broken_by(says_what_only_clients_say, "only a client sends");
    broken_by(sends_an_empty_frame, "frame length: got 0");
    broken_by(sends_too_long_a_frame, "frame length: got 1048577");
    broken_by(sends_the_longest_length, "frame length: got 4294967295");
    broken_by(sends_no_msgpack, "can't be decoded (cut short)");
    broken_by(sends_an_unknown_type, "can't be decoded (unknown type)");
    broken_by(sends_a_greeting, "can't be decoded (unknown type)");
    broken_by(cuts_a_message_short, "can't be decoded (cut short)");
    broken_by(sends_another_width, "can't be decoded (malformed)");
    broken_by(leaves_something_behind_a_message, "can't be decoded (cut short)");
    broken_by(sends_too_long_a_tail, "can't be decoded (too long)");
}

static void a_second_answer_is_a_breach(void)
{
    struct bench *bench = set_up();
    struct call call = { 0 };
    begin(&call, bench, IN, 1, link_request);
    hear_type(bench, MESSAGE_REQUEST);
    struct message both[] = { stamped(bench, feedback_of(1, "a", 1)),
                              stamped(bench, feedback_of(1, "b", 1)) };
    tell_exactly(bench, both, 2);
    end(&call); /* it may have got its answer before the second was looked at */
    CHECK_EQUAL(bench->link->state, LINK_VIOLATED);
    tear_down(bench);
}

/* -- a server that goes away ------------------------------------------------------------------ */

static void last_words_are_kept_for_python(void)
{
    static const char *const words[] = { "\x92\x05\x82\xa4" "code\xa1x\xa7message\xa1y",
                                         "\x92\x06\x81\xa7message\xa1y" };
    for (int i = 0; i < 2; i++) {
        struct bench *bench = set_up();
        struct call call = { 0 };
        begin(&call, bench, OUT, 1, link_request);
        hear_type(bench, MESSAGE_REQUEST);
        put_frame(bench, (const uint8_t *)words[i], strlen(words[i]));
        CHECK_EQUAL(end(&call), LINK_LOST);
        CHECK_EQUAL(bench->link->state, LINK_CLOSED);
        uint8_t taken[64];
        CHECK_EQUAL(link_take(bench->link, taken, sizeof taken), strlen(words[i]));
        CHECK(memcmp(taken, words[i], strlen(words[i])) == 0);
        tear_down(bench);
    }
}

static void last_words_are_read_even_if_nothing_can_be_sent_any_more(void)
{
    static const char words[] = "\x92\x06\x81\xa7message\xa1y";
    for (int unread = 0; unread < 2; unread++) {
        struct bench *bench = set_up();
        if (unread) /* then the socket reports a reset */
            CHECK_EQUAL(feed(bench, 1), 0);
        put_frame(bench, (const uint8_t *)words, sizeof words - 1);
        hang_up(bench);
        uint8_t data[8] = { 0 };
        struct link_access access = access_of(IN, 1, data);
        CHECK_EQUAL(link_request(bench->link, &access), LINK_LOST);
        CHECK_EQUAL(bench->link->state, LINK_CLOSED);
        CHECK_EQUAL(link_inbox_bytes(bench->link), sizeof words - 1);
        tear_down(bench);
    }
}

static void a_server_that_hangs_up_is_missed(void)
{
    static const size_t kept[] = { 0, 1, 4, 20 }; /* bytes of the answer that still come */
    for (int i = 0; i < 4; i++) {
        struct bench *bench = set_up();
        struct call call = { 0 };
        begin(&call, bench, IN, 1, link_request);
        struct message answer = stamped(bench, feedback_of(hear(bench).seq, "a", 1));
        uint8_t bytes[CODEC_MAX_HEADER + 4] = { 0 };
        bytes[3] = (uint8_t)codec_encode(&answer, bytes + 4);
        write_fully(bench, bytes, kept[i]);
        hang_up(bench);
        CHECK_EQUAL(end(&call), LINK_LOST);
        CHECK_EQUAL(bench->link->state, LINK_CLOSED);
        CHECK(strstr(bench->link->error, "closed the connection"));
        tear_down(bench);
    }
}

static void a_link_that_has_ended_takes_nothing(void)
{
    struct bench *bench = set_up();
    start_event_thread(bench);
    hang_up(bench);
    CHECK(readable(bench->link->inbox_fd, AT_MOST_MS));
    CHECK_EQUAL(bench->link->state, LINK_CLOSED);
    uint8_t data[8] = { 0 };
    struct link_access access = access_of(IN, 1, data);
    CHECK_EQUAL(link_request(bench->link, &access), LINK_LOST);
    CHECK_EQUAL(post(bench->link, &access), LINK_LOST);
    struct message clock = { .type = MESSAGE_CLOCK };
    CHECK_EQUAL(link_send(bench->link, &clock), LINK_LOST);
    tear_down(bench);
}

static void a_silent_server_is_asked_and_then_left(void)
{
    struct link_setup setup = usual_setup();
    setup.heartbeat_ns = 40000000;
    setup.deadline_ns = 240000000;
    for (int waiting = 0; waiting < 2; waiting++) {
        struct bench *bench = set_up_with(setup);
        struct call call = { 0 };
        if (waiting) {
            begin(&call, bench, IN, 1, link_request);
            hear_type(bench, MESSAGE_REQUEST);
        } else {
            start_event_thread(bench);
        }
        for (int i = 0; i < 8; i++) { /* longer than the deadline: answers keep it */
            struct message ping = hear_type(bench, MESSAGE_PING);
            CHECK_EQUAL(bench->link->state, LINK_OPEN);
            tell(bench, (struct message){ .type = MESSAGE_PONG, .token = ping.token });
        }
        hear_type(bench, MESSAGE_PING);
        CHECK(readable(bench->link->inbox_fd, AT_MOST_MS));
        CHECK_EQUAL(bench->link->state, LINK_TIMED_OUT);
        if (waiting)
            CHECK_EQUAL(end(&call), LINK_LOST);
        tear_down(bench);
    }
}

/* -- a stop ------------------------------------------------------------------------------------ */

static void a_stop_ends_a_wait(void)
{
    static const int modes[] = { LINK_ADAPTIVE, LINK_SPIN, LINK_BLOCK };
    static const uint32_t reasons[] = { CONTROL_STOP, CONTROL_LINK };
    for (int i = 0; i < 6; i++) {
        struct link_setup setup = usual_setup();
        setup.wait_mode = modes[i % 3];
        struct bench *bench = set_up_with(setup);
        struct call call = { 0 };
        begin(&call, bench, IN, 1, link_request);
        hear_type(bench, MESSAGE_REQUEST);
        control_raise(bench->control, reasons[i / 3]);
        CHECK_EQUAL(end(&call), LINK_STOPPED);
        CHECK_EQUAL(bench->link->state, LINK_OPEN);
        tear_down(bench);
    }
}

static void other_reasons_end_no_wait(void)
{
    struct bench *bench = set_up();
    struct call call = { 0 };
    begin(&call, bench, IN, 1, link_request);
    struct message request = hear_type(bench, MESSAGE_REQUEST);
    control_raise(bench->control, CONTROL_PAUSE | CONTROL_EVENT | CONTROL_PROBE);
    tell(bench, (struct message){ .type = MESSAGE_PING, .token = 1 });
    hear_type(bench, MESSAGE_PONG);
    tell(bench, feedback_of(request.seq, "a", 1));
    CHECK_EQUAL(end(&call), 0);
    tear_down(bench);
}

static void a_stop_that_was_cleared_is_forgotten(void)
{
    struct bench *bench = set_up();
    control_raise(bench->control, CONTROL_STOP);
    CHECK(readable(bench->control->stop_fd, 0));
    control_clear(bench->control, CONTROL_STOP);
    CHECK(!readable(bench->control->stop_fd, 0));
    CHECK_EQUAL(control_pending(bench->control), 0);
    tear_down(bench);
}

/* -- a server that does not read --------------------------------------------------------------- */

static void what_the_socket_does_not_take_is_sent_later_in_order(void)
{
    struct bench *bench = set_up();
    start_event_thread(bench);
    enum { FEEDS = 500 }; /* 2 MB: more than a socket holds */
    for (int i = 0; i < FEEDS; i++)
        CHECK_EQUAL(feed(bench, CODEC_MAX_FEED), 0);
    CHECK(bench->link->out_waiting);
    for (int i = 0; i < FEEDS; i++)
        CHECK_EQUAL(hear_type(bench, MESSAGE_FEED).length, CODEC_MAX_FEED);
    tear_down(bench);
}

static void a_server_that_never_reads_costs_no_more_than_a_bound(void)
{
    struct bench *bench = set_up();
    int sent = 0;
    while (feed(bench, CODEC_MAX_FEED) == 0)
        CHECK(++sent < 2000);
    CHECK(sent > 900); /* 4 MiB, and what the socket holds */
    CHECK_EQUAL(bench->link->state, LINK_BROKEN);
    CHECK(strstr(bench->link->error, "no room for"));
    tear_down(bench);
}

static void a_request_goes_out_while_it_waits(void)
{
    struct bench *bench = set_up(); /* no event thread: the vCPU pushes what is left over */
    for (int i = 0; i < 200; i++)
        CHECK_EQUAL(feed(bench, CODEC_MAX_FEED), 0);
    struct call call = { 0 };
    begin(&call, bench, IN, 1, link_request);
    for (int i = 0; i < 200; i++)
        hear_type(bench, MESSAGE_FEED);
    tell(bench, feedback_of(hear_type(bench, MESSAGE_REQUEST).seq, "a", 1));
    CHECK_EQUAL(end(&call), 0);
    tear_down(bench);
}

static void what_is_too_long_is_refused_and_takes_no_number(void)
{
    struct bench *bench = set_up();
    CHECK_EQUAL(feed(bench, CODEC_MAX_FEED + 1), LINK_REFUSED);
    struct message strange = { .type = 200 };
    CHECK_EQUAL(link_send(bench->link, &strange), LINK_REFUSED);
    CHECK_EQUAL(feed(bench, 1), 0);
    CHECK_EQUAL(hear_type(bench, MESSAGE_FEED).seq, 1);
    tear_down(bench);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(a_server_that_breaks_a_rule_is_left),
        TEST(a_second_answer_is_a_breach),
        TEST(last_words_are_kept_for_python),
        TEST(last_words_are_read_even_if_nothing_can_be_sent_any_more),
        TEST(a_server_that_hangs_up_is_missed),
        TEST(a_link_that_has_ended_takes_nothing),
        TEST(a_silent_server_is_asked_and_then_left),
        TEST(a_stop_ends_a_wait),
        TEST(other_reasons_end_no_wait),
        TEST(a_stop_that_was_cleared_is_forgotten),
        TEST(what_the_socket_does_not_take_is_sent_later_in_order),
        TEST(a_server_that_never_reads_costs_no_more_than_a_bound),
        TEST(a_request_goes_out_while_it_waits),
        TEST(what_is_too_long_is_refused_and_takes_no_number),
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
