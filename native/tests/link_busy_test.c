/* Everybody at once: a vCPU, Python's threads, the event thread, a server that talks all the time. */
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
    (void)fd;
    CHECK(irqs.count < IRQ_ROOM); /* the receive lock is held: no two at once */
    irqs.set[irqs.count++].level = level->level;
    return 0;
}

enum { ROUNDS = 3000, ACCESSES = 2000, FEEDS = 400 };

struct tally {
    struct bench *bench;
    uint64_t writes, requests, feeds, clocks, interrupts;
    uint32_t unacknowledged;
};

static void take_batch(struct tally *tally, const struct message *batch)
{
    for (uint32_t i = 0; i < batch->length; i++) {
        struct posted_write write;
        CHECK_EQUAL(codec_decode_write(batch->data + i * CODEC_WRITE_BYTES, &write), 0);
        CHECK_EQUAL(write.value, (uint8_t)tally->writes++);
    }
    tally->unacknowledged += batch->length;
    if (tally->unacknowledged >= 16) {
        tally->unacknowledged = 0;
        tell(tally->bench, (struct message){ .type = MESSAGE_ACK });
    }
}

static void answer(struct tally *tally, const struct message *request)
{
    struct bench *bench = tally->bench;
    uint8_t low = (uint8_t)request->seq;
    tally->requests++;
    tally->interrupts++;
    struct message all[] = {
        stamped(bench, interrupt_of(1, tally->interrupts & 1, tally->interrupts)),
        stamped(bench, (struct message){ .type = MESSAGE_EMIT, .data = &low, .length = 1 }),
        stamped(bench, feedback_of(request->seq, &low, 1)),
    };
    tell_exactly(bench, all, 3);
}

static void *server_thread(void *argument)
{
    struct tally *tally = argument;
    for (;;) {
        struct message message = hear(tally->bench);
        switch (message.type) {
        case MESSAGE_REQUEST:
            answer(tally, &message);
            break;
        case MESSAGE_BATCH:
            take_batch(tally, &message);
            break;
        case MESSAGE_FEED:
            tally->feeds++;
            tell(tally->bench, (struct message){ .type = MESSAGE_CONSUMED });
            break;
        case MESSAGE_PING:
            tell(tally->bench, (struct message){ .type = MESSAGE_PONG, .token = message.token });
            break;
        case MESSAGE_CLOCK:
            tally->clocks++;
            break;
        default:
            CHECK_EQUAL(message.type, MESSAGE_DETACH);
            return NULL;
        }
    }
}

static void *vcpu_thread(void *argument)
{
    struct bench *bench = argument;
    uint8_t posted = 0, got = 0;
    for (int i = 0; i < ACCESSES; i++) {
        struct link_access read = access_of(IN, 1, &got);
        if (i % 3 == 0)
            CHECK_EQUAL(link_request(bench->link, &read), 0);
        else
            CHECK_EQUAL(post_byte(bench, posted++), 0);
        if (i % 50 == 0)
            CHECK_EQUAL(link_fence(bench->link), 0);
    }
    return NULL;
}

static void *feeder_thread(void *argument)
{
    struct bench *bench = argument;
    for (int i = 0; i < FEEDS; i++) {
        struct message feed = { .type = MESSAGE_FEED, .data = (const uint8_t *)"k", .length = 1 };
        struct message clock = { .type = MESSAGE_CLOCK };
        CHECK_EQUAL(link_send(bench->link, i % 2 ? &feed : &clock), 0);
    }
    return NULL;
}

/* Takes what the inbox has; returns how many messages. */
static int empty_inbox(struct bench *bench)
{
    static uint8_t inbox[1 << 20];
    size_t size = link_take(bench->link, inbox, link_inbox_bytes(bench->link));
    int count = 0;
    for (size_t at = 0; at < size; count++) {
        struct message message;
        long length = codec_decode(inbox + at, size - at, &message);
        CHECK(length > 0);
        at += (size_t)length;
    }
    return count;
}

static void everybody_at_once(int wait_mode, uint32_t window)
{
    struct link_setup setup = usual_setup();
    setup.wait_mode = wait_mode;
    setup.window = window;
    setup.flush_after_ns = 100000;
    struct bench *bench = set_up_with(setup);
    struct tally tally = { .bench = bench };
    pthread_t server, vcpu, feeder;
    start_event_thread(bench);
    pthread_create(&server, NULL, server_thread, &tally);
    pthread_create(&vcpu, NULL, vcpu_thread, bench);
    pthread_create(&feeder, NULL, feeder_thread, bench);
    int taken = 0, wanted = (ACCESSES + 2) / 3 + FEEDS / 2;
    while (taken < wanted) {
        CHECK(readable(bench->link->inbox_fd, AT_MOST_MS));
        taken += empty_inbox(bench);
    }
    CHECK_EQUAL(pthread_join(vcpu, NULL), 0);
    CHECK_EQUAL(pthread_join(feeder, NULL), 0);
    struct message detach = { .type = MESSAGE_DETACH };
    CHECK_EQUAL(link_send(bench->link, &detach), 0);
    CHECK_EQUAL(pthread_join(server, NULL), 0);
    CHECK_EQUAL(taken, wanted);
    CHECK_EQUAL(tally.requests, (ACCESSES + 2) / 3);
    CHECK_EQUAL(tally.writes, ACCESSES - tally.requests);
    CHECK_EQUAL(tally.feeds + tally.clocks, FEEDS);
    CHECK_EQUAL(irqs.count, tally.interrupts);
    tear_down(bench);
}

static void adaptively(void)
{
    everybody_at_once(LINK_ADAPTIVE, 4096);
}

static void blocking(void)
{
    everybody_at_once(LINK_BLOCK, 4096);
}

static void spinning_in_a_narrow_window(void)
{
    everybody_at_once(LINK_SPIN, 32);
}

static void *settle(void *link)
{
    CHECK_EQUAL(link_barrier(link), 0);
    return NULL;
}

static void dawdle(int turns)
{
    for (volatile int turn = 0; turn < turns; turn++)
        ;
}

/* Three messages for Python, more or less close together: they come in, whenever it is. */
static void talk(struct bench *bench, int gap)
{
    struct message emit = { .type = MESSAGE_EMIT, .data = (const uint8_t *)"x", .length = 1 };
    for (int i = 0; i < 3; i++) {
        dawdle(gap);
        tell(bench, emit);
    }
    for (int heard = 0; heard < 3; heard += empty_inbox(bench))
        CHECK(readable(bench->link->inbox_fd, AT_MOST_MS));
}

static void what_comes_while_the_last_is_read_is_heard_too(void)
{
    struct bench *bench = set_up();
    start_event_thread(bench);
    for (int i = 0; i < ROUNDS; i++)
        talk(bench, i % 500 * 20);
    tear_down(bench);
}

static void what_comes_as_a_wait_ends_is_heard_too(void)
{
    struct bench *bench = set_up();
    start_event_thread(bench);
    for (int i = 0; i < ROUNDS; i++) {
        pthread_t waiter;
        CHECK_EQUAL(pthread_create(&waiter, NULL, settle, bench->link), 0);
        uint64_t token = hear_type(bench, MESSAGE_PING).token;
        dawdle(i % 7 * 3000);
        tell(bench, (struct message){ .type = MESSAGE_PONG, .token = token });
        talk(bench, i % 500 * 20);
        CHECK_EQUAL(pthread_join(waiter, NULL), 0);
    }
    tear_down(bench);
}

/* -- a server that says more than Python takes ------------------------------------------------- */

enum { FLOOD_EMITS = 1500, FLOOD_BYTES = FLOOD_EMITS * CODEC_MAX_EMIT }; /* some 24 MB */

static void *flood(void *argument)
{
    static uint8_t text[CODEC_MAX_EMIT];
    struct bench *bench = argument;
    uint64_t request = hear_type(bench, MESSAGE_REQUEST).seq;
    for (int i = 0; i < FLOOD_EMITS; i++)
        tell(bench, (struct message){ .type = MESSAGE_EMIT, .data = text, .length = sizeof text });
    tell(bench, feedback_of(request, "!", 1));
    return NULL;
}

/* Takes all of the inbox, as Python does; how much that was. */
static size_t take_all(struct link *link)
{
    size_t size = link_inbox_bytes(link);
    uint8_t *taken = malloc(size + 1);
    size = link_take(link, taken, size);
    free(taken);
    return size;
}

static void wait_until_full(struct link *link)
{
    struct timespec moment = { .tv_nsec = 1000000 };
    for (int i = 0; i < AT_MOST_MS && link_inbox_bytes(link) < LINK_INBOX_FULL; i++)
        nanosleep(&moment, NULL);
    CHECK(link_inbox_bytes(link) >= LINK_INBOX_FULL);
}

static void a_full_inbox_has_the_server_wait_and_the_answer_still_comes(void)
{
    struct bench *bench = set_up();
    struct call in;
    pthread_t server;
    size_t taken = 0;
    start_event_thread(bench);
    CHECK_EQUAL(pthread_create(&server, NULL, flood, bench), 0);
    begin(&in, bench, IN, 1, link_request);
    while (taken < FLOOD_BYTES) {
        if (taken + LINK_INBOX_FULL < FLOOD_BYTES)
            wait_until_full(bench->link);
        CHECK(link_inbox_bytes(bench->link) <= LINK_INBOX_FULL + CODEC_MAX_FRAME);
        taken += take_all(bench->link);
    }
    CHECK_EQUAL(end(&in), 0);
    CHECK_EQUAL(in.data[0], '!');
    CHECK_EQUAL(pthread_join(server, NULL), 0);
    tear_down(bench);
}

static void a_stop_is_heard_while_the_inbox_is_full(void)
{
    struct bench *bench = set_up();
    struct call in;
    pthread_t server;
    size_t taken = 0;
    start_event_thread(bench);
    CHECK_EQUAL(pthread_create(&server, NULL, flood, bench), 0);
    begin(&in, bench, IN, 1, link_request);
    wait_until_full(bench->link);
    control_raise(bench->control, CONTROL_STOP);
    CHECK_EQUAL(end(&in), LINK_STOPPED);
    while (taken < FLOOD_BYTES)
        taken += take_all(bench->link);
    CHECK_EQUAL(pthread_join(server, NULL), 0);
    tear_down(bench);
}

int main(void)
{
    static const struct test tests[] = { TEST(adaptively), TEST(blocking),
                                         TEST(spinning_in_a_narrow_window),
                                         TEST(what_comes_while_the_last_is_read_is_heard_too),
                                         TEST(what_comes_as_a_wait_ends_is_heard_too),
                                         TEST(a_full_inbox_has_the_server_wait_and_the_answer_still_comes),
                                         TEST(a_stop_is_heard_while_the_inbox_is_full) };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
