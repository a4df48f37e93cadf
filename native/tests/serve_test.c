/*
 * The server's data loop: what is ordinary is decoded and answered, all else is handed over whole.
 * Bytes go through memory (shm_stream.h) where the environment has OVER_MEMORY.
 */
#include "serve/serve.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "check.h"

enum { SERVER_ID = 3, VM_ID = 4, CLIENT_ID = 5, HYPERVISOR = 1, ID = 70, HANDLE = 6 };

struct bench {
    struct serve_loop *loop;
    struct serve_stream *stream;
    int client, server; /* the two ends */
    struct shm_stream shm;   /* the client's */
};

/* The client gets memory: all that comes behind one frame goes through it. */
static void share(struct bench *bench)
{
    uint8_t frame[SERVE_HEADER + 1];
    _Alignas(struct cmsghdr) uint8_t room[CMSG_SPACE(sizeof(int))];
    struct iovec part = { frame, sizeof frame };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room,
                              .msg_controllen = sizeof room };
    int memory_fd;
    CHECK_EQUAL(serve_put(bench->loop, (const uint8_t *)"x", 1), 0);
    CHECK_EQUAL(serve_share(bench->loop, bench->stream), 0);
    CHECK_EQUAL(recvmsg(bench->client, &message, MSG_DONTWAIT), sizeof frame);
    CHECK(CMSG_FIRSTHDR(&message));
    memcpy(&memory_fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof memory_fd);
    CHECK_EQUAL(shm_stream_open(&bench->shm, bench->client, memory_fd), 0);
    close(memory_fd);
}

static void add(struct bench *bench)
{
    int fds[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    bench->server = fds[0];
    bench->client = fds[1];
    bench->stream = serve_add(bench->loop, fds[0], ID);
    CHECK(bench->stream);
    bench->stream->direct = 1;
    bench->stream->server_id = SERVER_ID;
    bench->stream->vm_id = VM_ID;
    bench->stream->client_id = CLIENT_ID;
    bench->stream->hypervisor = HYPERVISOR;
    bench->stream->window = 100;
    bench->stream->ack_every = 25;
    bench->stream->clock.running = 1;
    if (getenv("OVER_MEMORY"))
        share(bench);
}

static struct bench set_up(int mode)
{
    struct bench bench = { .loop = serve_new(mode, 100000, INT64_C(1000000000000)) };
    CHECK(bench.loop);
    bench.loop->exchange.due_ns = 1; /* long ago: a wait ends at once */
    add(&bench);
    return bench;
}

static void tear_down(struct bench *bench)
{
    serve_remove(bench->loop, bench->stream);
    close(bench->server);
    close(bench->client);
    shm_stream_close(&bench->shm);
    serve_free(bench->loop);
}

/* What is found next, but for the time's being over. */
static int next(struct bench *bench)
{
    for (int turn = 0; turn < 10; turn++) {
        int found = serve_next(bench->loop);
        if (found != SERVE_TIMER)
            return found;
    }
    return SERVE_TIMER;
}

static struct message simple(uint8_t direction, uint8_t size)
{
    static const uint8_t data[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    return (struct message){ .type = MESSAGE_REQUEST, .seq = 1, .server_id = SERVER_ID,
                             .vm_id = VM_ID, .hypervisor = HYPERVISOR, .client_id = CLIENT_ID,
                             .device_id = 9, .direction = direction, .address = 0x3f8,
                             .size = size, .elements = 1, .time_ns = 77, .data = data,
                             .length = direction ? size : 0 };
}

static struct message batch(uint32_t count, const uint16_t *ports)
{
    static uint8_t writes[CODEC_MAX_WRITES * CODEC_WRITE_BYTES];
    for (uint32_t i = 0; i < count; i++) {
        struct posted_write write = { .device_id = 9, .direction = 1, .address = ports[i],
                                      .size = 1, .time_ns = 100 + i, .value = 0x100 + i };
        codec_encode_write(&write, writes + i * CODEC_WRITE_BYTES);
    }
    struct message message = simple(0, 1);
    message.type = MESSAGE_BATCH;
    message.data = writes;
    message.length = count;
    return message;
}

/* A frame with a message in it; returns its length. */
static size_t framed(const struct message *message, uint8_t *out)
{
    long size = codec_encode(message, out + SERVE_HEADER);
    CHECK(size > 0);
    uint32_t length = __builtin_bswap32((uint32_t)size);
    memcpy(out, &length, SERVE_HEADER);
    return (size_t)size + SERVE_HEADER;
}

/* How much of it was taken from the client; nothing where the socket or the memory is full. */
static size_t say_some(struct bench *bench, const uint8_t *bytes, size_t length)
{
    ssize_t n = bench->shm.page ? shm_stream_give(&bench->shm, bytes, length)
                                 : send(bench->client, bytes, length, MSG_DONTWAIT);
    return n > 0 ? (size_t)n : 0;
}

static void say(struct bench *bench, const uint8_t *bytes, size_t length)
{
    CHECK_EQUAL(say_some(bench, bytes, length), length);
}

/* What the client hears, as recv(). */
static ssize_t hear_some(struct bench *bench, uint8_t *bytes, size_t room)
{
    if (!bench->shm.page)
        return recv(bench->client, bytes, room, MSG_DONTWAIT);
    ssize_t n = shm_stream_take(&bench->shm, bytes, room);
    return n ? n : -1;
}

/* Until the client can't hear any more. */
static void fill(struct bench *bench)
{
    static uint8_t filler[1024];
    struct shm_stream *shm = &bench->stream->shm;
    while (shm->page ? shm_stream_give(shm, filler, sizeof filler) > 0
                      : send(bench->server, filler, sizeof filler, MSG_DONTWAIT) > 0)
        ;
}

static void put(struct bench *bench, const struct message *message)
{
    static uint8_t bytes[SERVE_CHUNK];
    say(bench, bytes, framed(message, bytes));
}

/* Gives the access that was asked for a handle. */
static void name_access(struct bench *bench, int handle)
{
    bench->loop->access.handle = handle;
    CHECK_EQUAL(serve_bind(bench->stream, &bench->loop->access), 0);
}

/* The messages of the one frame that the client gets; returns how many. */
static size_t heard(struct bench *bench, struct message *messages)
{
    static uint8_t bytes[4096];
    ssize_t n = hear_some(bench, bytes, sizeof bytes);
    if (n < 0)
        return 0;
    size_t count = 0, at = SERVE_HEADER;
    CHECK_EQUAL(bytes[2] << 8 | bytes[3], n - SERVE_HEADER);
    while (at < (size_t)n) {
        long size = codec_decode(bytes + at, (size_t)n - at, &messages[count++]);
        CHECK(size > 0);
        at += (size_t)size;
    }
    return count;
}

static void a_request_is_asked_about_once_and_then_comes_by_its_handle(void)
{
    static const uint8_t sizes[] = { 1, 2, 4, 8 };
    for (int i = 0; i < 8; i++) {
        struct bench bench = set_up(SPIN_WAIT_BLOCK);
        uint8_t size = sizes[i / 2], direction = i % 2;
        struct message request = simple(direction, size), answer;
        put(&bench, &request);
        CHECK_EQUAL(next(&bench), SERVE_UNKNOWN);
        CHECK_EQUAL(bench.loop->access.device_id, 9);
        CHECK_EQUAL(bench.loop->access.address, 0x3f8);
        CHECK_EQUAL(bench.loop->access.size, size);
        name_access(&bench, HANDLE);
        CHECK_EQUAL(next(&bench), HANDLE);
        uint64_t mask = size == 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
        CHECK(bench.loop->exchange.value == (direction ? 0x0807060504030201 & mask : 0));
        CHECK_EQUAL(bench.loop->exchange.time_ns, 77);
        CHECK_EQUAL(bench.loop->exchange.stream, ID);
        bench.loop->exchange.answer = 0x1122334455667788;
        CHECK_EQUAL(next(&bench), SERVE_TIMER);
        CHECK_EQUAL(heard(&bench, &answer), 1);
        CHECK_EQUAL(answer.type, direction ? MESSAGE_FINISH : MESSAGE_FEEDBACK);
        CHECK(answer.request == 1 && answer.ack == 1 && answer.seq == 1 && answer.vm_id == VM_ID);
        CHECK_EQUAL(answer.length, direction ? 0 : size);
        CHECK(direction || answer.data[0] == 0x88);
        request.seq = 2;
        put(&bench, &request);
        CHECK_EQUAL(next(&bench), HANDLE);
        tear_down(&bench);
    }
}

static void what_a_request_caused_goes_out_before_its_answer(void)
{
    struct bench bench = set_up(SPIN_WAIT_BLOCK);
    struct message request = simple(0, 1), caused = { .type = MESSAGE_PONG }, answers[2];
    uint8_t bytes[64];
    put(&bench, &request);
    CHECK_EQUAL(next(&bench), SERVE_UNKNOWN);
    name_access(&bench, HANDLE);
    CHECK_EQUAL(next(&bench), HANDLE);
    CHECK_EQUAL(serve_put(bench.loop, bytes, (size_t)codec_encode(&caused, bytes)), 0);
    bench.loop->exchange.status = 2;
    CHECK_EQUAL(next(&bench), SERVE_TIMER);
    CHECK_EQUAL(heard(&bench, answers), 2);
    CHECK_EQUAL(answers[0].type, MESSAGE_PONG);
    CHECK_EQUAL(answers[1].status, 2);
    CHECK_EQUAL(answers[1].length, 0);
    CHECK_EQUAL(bench.loop->exchange.status, 0);
    tear_down(&bench);
}

static void handed_over(struct message message)
{
    struct bench bench = set_up(SPIN_WAIT_BLOCK);
    static uint8_t bytes[SERVE_CHUNK];
    put(&bench, &message);
    CHECK_EQUAL(next(&bench), SERVE_BYTES);
    CHECK_EQUAL(bench.loop->bytes_used, framed(&message, bytes));
    CHECK(memcmp(bench.loop->bytes, bytes, bench.loop->bytes_used) == 0);
    CHECK_EQUAL(bench.stream->counters.received, 0);
    CHECK_EQUAL(next(&bench), SERVE_TIMER);
    tear_down(&bench);
}

#define HAND_OVER(made, member, wrong)                                                   \
    do {                                                                                 \
        struct message message = made;                                                   \
        message.member = wrong;                                                          \
        handed_over(message);                                                            \
    } while (0)

static void anything_unusual_is_handed_over(void)
{
    static uint16_t ports[101];
    HAND_OVER(simple(1, 4), seq, 2);
    HAND_OVER(simple(1, 4), ack, 1);
    HAND_OVER(simple(1, 4), server_id, 9);
    HAND_OVER(simple(1, 4), vm_id, 9);
    HAND_OVER(simple(1, 4), client_id, 9);
    HAND_OVER(simple(1, 4), hypervisor, 9);
    HAND_OVER(simple(1, 4), elements, 2);
    HAND_OVER(simple(1, 4), elements, 0);
    HAND_OVER(simple(1, 4), direction, 2);
    HAND_OVER(simple(1, 4), size, 3);
    HAND_OVER(simple(1, 4), size, 0);
    HAND_OVER(simple(1, 4), length, 3);
    HAND_OVER(simple(1, 4), length, 0);
    HAND_OVER(simple(1, 4), time_ns, UINT64_MAX);
    HAND_OVER(simple(1, 4), time_ns, 1ull << 63);
    HAND_OVER(simple(1, 4), time_ns, (1ull << 63) - 1);
    HAND_OVER(batch(3, ports), seq, 2);
    HAND_OVER(batch(3, ports), vm_id, 9);
    HAND_OVER(batch(3, ports), length, 0);
    handed_over(batch(101, ports)); /* more than the window */
    handed_over((struct message){ .type = MESSAGE_PING });
    handed_over((struct message){ .type = MESSAGE_CLOCK, .seq = 1 });
}

static void nothing_is_decoded_for_a_stream_that_is_not_ready_for_it(void)
{
    for (int i = 0; i < 2; i++) {
        struct bench bench = set_up(SPIN_WAIT_BLOCK);
        struct message request = simple(0, 1);
        if (i)
            bench.stream->direct = 0;
        else
            bench.stream->clock.running = 0;
        put(&bench, &request);
        CHECK_EQUAL(next(&bench), SERVE_BYTES);
        tear_down(&bench);
    }
}

static void a_message_that_python_passes_on_goes_to_the_session(void)
{
    struct bench bench = set_up(SPIN_WAIT_BLOCK);
    struct message request = simple(0, 1);
    put(&bench, &request);
    CHECK_EQUAL(next(&bench), SERVE_UNKNOWN);
    bench.loop->exchange.pass = 1;
    CHECK_EQUAL(next(&bench), SERVE_BYTES);
    CHECK_EQUAL(bench.loop->exchange.pass, 0);
    tear_down(&bench);
}

static void a_batch_comes_in_runs(void)
{
    static const uint16_t ports[] = { 5, 5, 5, 6, 5 };
    struct bench bench = set_up(SPIN_WAIT_BLOCK);
    struct message message = batch(5, ports);
    put(&bench, &message);
    for (int handle = 5; handle <= 6; handle++) {
        CHECK_EQUAL(next(&bench), SERVE_UNKNOWN);
        CHECK_EQUAL(bench.loop->access.address, handle);
        name_access(&bench, handle);
    }
    CHECK_EQUAL(next(&bench), SERVE_BATCH);
    CHECK_EQUAL(bench.loop->exchange.count, 5);
    CHECK_EQUAL(bench.loop->exchange.runs, 3);
    for (int i = 0; i < 5; i++) {
        CHECK_EQUAL(bench.loop->handles[i], ports[i]);
        CHECK_EQUAL(bench.loop->values[i], i); /* cut to its size */
        CHECK_EQUAL(bench.loop->times[i], 100 + i);
    }
    CHECK(bench.loop->run_handles[0] == 5 && bench.loop->run_counts[0] == 3);
    CHECK(bench.loop->run_handles[1] == 6 && bench.loop->run_counts[1] == 1);
    CHECK(bench.loop->run_handles[2] == 5 && bench.loop->run_counts[2] == 1);
    CHECK_EQUAL(next(&bench), SERVE_TIMER);
    CHECK_EQUAL(bench.stream->counters.received, 1);
    tear_down(&bench);
}

static void batches_are_acknowledged_in_time_or_when_it_is_wanted(void)
{
    static const uint16_t ports[10];
    struct bench bench = set_up(SPIN_WAIT_BLOCK);
    struct message message = batch(10, ports), answer;
    for (uint64_t seq = 1; seq <= 4; seq++) {
        message.seq = seq;
        put(&bench, &message);
        if (seq == 1) {
            CHECK_EQUAL(next(&bench), SERVE_UNKNOWN);
            name_access(&bench, HANDLE);
        }
        CHECK_EQUAL(next(&bench), SERVE_BATCH);
        bench.loop->exchange.ack = seq == 4;
        CHECK_EQUAL(next(&bench), SERVE_TIMER);
        CHECK_EQUAL(heard(&bench, &answer), seq >= 3);
        CHECK(seq < 3 || (answer.type == MESSAGE_ACK && answer.ack == seq));
    }
    tear_down(&bench);
}

static void frames_are_put_together_however_they_are_cut(void)
{
    uint8_t bytes[512];
    struct message request = simple(1, 2), answers[2];
    size_t length = framed(&request, bytes);
    request.seq = 2;
    length += framed(&request, bytes + length);
    for (size_t cut = 1; cut < length; cut++) {
        struct bench bench = set_up(SPIN_WAIT_BLOCK);
        size_t count = 0;
        bench.loop->access = (struct serve_access){ .address = 0x3f8, .device_id = 9,
                                                    .direction = 1, .size = 2 };
        name_access(&bench, HANDLE);
        for (int part = 0; part < 2; part++) {
            size_t from = part ? cut : 0, to = part ? length : cut;
            say(&bench, bytes + from, to - from);
            while (next(&bench) == HANDLE)
                ;
            count += heard(&bench, answers);
        }
        CHECK_EQUAL(count, 2);
        tear_down(&bench);
    }
}

static void any_bytes_are_handed_over(void)
{
    uint64_t state = 1;
    for (int turn = 0; turn < 2000; turn++) {
        struct bench bench = set_up(SPIN_WAIT_BLOCK);
        uint8_t bytes[128];
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t length = 5 + state % (sizeof bytes - 5);
        for (size_t i = 0; i < length; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            bytes[i] = (uint8_t)(state >> 56);
        }
        if (turn % 2) /* a good length and type, and then nonsense */
            memcpy(bytes, (uint8_t[]){ 0, 0, 0, (uint8_t)(length - 4), 0x9f, 0x10 }, 6);
        else
            bytes[0] |= 1; /* longer than any frame may be */
        say(&bench, bytes, length);
        CHECK_EQUAL(next(&bench), SERVE_BYTES);
        CHECK(memcmp(bench.loop->bytes, bytes, SERVE_HEADER) == 0);
        CHECK_EQUAL(bench.loop->bytes_used, turn % 2 ? length : SERVE_HEADER);
        CHECK_EQUAL(next(&bench), SERVE_TIMER);
        tear_down(&bench);
    }
}

static void the_longest_frame_is_put_together(void)
{
    struct bench bench = set_up(SPIN_WAIT_BLOCK);
    static uint8_t bytes[SERVE_HEADER + CODEC_MAX_FRAME];
    memcpy(bytes, (uint8_t[]){ 0, 0x10, 0, 0 }, SERVE_HEADER);
    size_t sent = 0;
    int found = SERVE_TIMER;
    while (found == SERVE_TIMER) {
        sent += say_some(&bench, bytes + sent, sizeof bytes - sent);
        found = next(&bench);
    }
    CHECK_EQUAL(found, SERVE_BYTES);
    CHECK_EQUAL(bench.loop->bytes_used, sizeof bytes);
    tear_down(&bench);
}

static void a_wait_ends_when_something_else_is_to_be_done(void)
{
    for (int mode = SPIN_WAIT_ADAPTIVE; mode <= SPIN_WAIT_BLOCK; mode++) {
        struct bench bench = set_up(mode);
        int other[2];
        CHECK_EQUAL(pipe(other), 0);
        CHECK_EQUAL(serve_next(bench.loop), SERVE_TIMER);
        bench.loop->exchange.due_ns = INT64_MAX;
        CHECK_EQUAL(serve_watch(bench.loop, other[0], 1), 0);
        CHECK_EQUAL(write(other[1], "x", 1), 1);
        CHECK_EQUAL(serve_next(bench.loop), SERVE_OTHER);
        CHECK_EQUAL(bench.loop->other_fd, other[0]);
        CHECK_EQUAL(serve_watch(bench.loop, other[0], 0), 0);
        close(bench.client);
        CHECK_EQUAL(serve_next(bench.loop), SERVE_CLOSED);
        CHECK_EQUAL(bench.loop->exchange.stream, ID);
        bench.client = dup(bench.server);
        close(other[0]);
        close(other[1]);
        tear_down(&bench);
    }
}

static void an_answer_that_the_socket_does_not_take_is_kept_and_sent_later(void)
{
    struct bench bench = set_up(SPIN_WAIT_BLOCK);
    static uint8_t filler[1024];
    struct message request = simple(0, 4), answer;
    put(&bench, &request);
    CHECK_EQUAL(next(&bench), SERVE_UNKNOWN);
    name_access(&bench, HANDLE);
    CHECK_EQUAL(next(&bench), HANDLE);
    fill(&bench);
    CHECK_EQUAL(next(&bench), SERVE_TIMER);
    CHECK(bench.stream->out_used > 0);
    while (hear_some(&bench, filler, sizeof filler) > 0)
        ;
    CHECK_EQUAL(next(&bench), SERVE_TIMER);
    CHECK_EQUAL(bench.stream->out_used, 0);
    CHECK_EQUAL(heard(&bench, &answer), 1);
    CHECK_EQUAL(answer.request, 1);
    tear_down(&bench);
}

static void a_client_that_never_reads_is_given_up(void)
{
    struct bench bench = set_up(SPIN_WAIT_BLOCK);
    static uint8_t frames[1 << 20];
    int found = 0, times = 0;
    while (found == 0 && times++ < 20)
        found = serve_send(bench.loop, bench.stream, frames, sizeof frames);
    CHECK_EQUAL(found, SERVE_FULL);
    CHECK(times >= SERVE_MAX_OUT / (int)sizeof frames);
    tear_down(&bench);
}

static void a_stream_that_is_removed_is_not_heard_of_again(void)
{
    struct bench one = set_up(SPIN_WAIT_BLOCK), two = one;
    struct message ping = { .type = MESSAGE_PING };
    add(&two);
    put(&one, &ping);
    put(&two, &ping);
    CHECK_EQUAL(next(&one), SERVE_BYTES);
    serve_remove(one.loop, two.stream);
    CHECK_EQUAL(next(&one), SERVE_TIMER);
    close(two.client);
    close(two.server);
    shm_stream_close(&two.shm);
    tear_down(&one);
}

static void a_stream_has_only_so_many_handles(void)
{
    struct bench bench = set_up(SPIN_WAIT_BLOCK);
    struct serve_access access = { .size = 1 };
    for (int i = 0; i < SERVE_MAX_ACCESSES; i++) {
        access.address = access.handle = i;
        CHECK_EQUAL(serve_bind(bench.stream, &access), 0);
    }
    CHECK_EQUAL(serve_bind(bench.stream, &access), -1);
    tear_down(&bench);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(a_request_is_asked_about_once_and_then_comes_by_its_handle),
        TEST(what_a_request_caused_goes_out_before_its_answer),
        TEST(anything_unusual_is_handed_over),
        TEST(nothing_is_decoded_for_a_stream_that_is_not_ready_for_it),
        TEST(a_message_that_python_passes_on_goes_to_the_session),
        TEST(a_batch_comes_in_runs),
        TEST(batches_are_acknowledged_in_time_or_when_it_is_wanted),
        TEST(frames_are_put_together_however_they_are_cut),
        TEST(any_bytes_are_handed_over),
        TEST(the_longest_frame_is_put_together),
        TEST(a_wait_ends_when_something_else_is_to_be_done),
        TEST(an_answer_that_the_socket_does_not_take_is_kept_and_sent_later),
        TEST(a_client_that_never_reads_is_given_up),
        TEST(a_stream_that_is_removed_is_not_heard_of_again),
        TEST(a_stream_has_only_so_many_handles),
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
