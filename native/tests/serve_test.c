/* The server's fast way with one client: what is simple is served, all else is handed back whole. */
#include "serve.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "codec.h"

enum { FOR_EVER = 1, SERVER_ID = 3, VM_ID = 4, CLIENT_ID = 5, HYPERVISOR = 1 };

struct bench {
    struct serve_stream *stream;
    int client; /* the client's end */
    int other[2];
};

static struct bench set_up(void)
{
    struct bench bench;
    int fds[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    CHECK_EQUAL(pipe(bench.other), 0);
    bench.stream = serve_new();
    bench.stream->fd = fds[0];
    bench.client = fds[1];
    bench.stream->epoll_fd = epoll_create1(0);
    for (int i = 0; i < 2; i++) {
        int fd = i ? fds[0] : bench.other[0];
        struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
        CHECK_EQUAL(epoll_ctl(bench.stream->epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
    }
    bench.stream->server_id = SERVER_ID;
    bench.stream->vm_id = VM_ID;
    bench.stream->client_id = CLIENT_ID;
    bench.stream->hypervisor = HYPERVISOR;
    bench.stream->clock_highest_ns = INT64_MAX / 2;
    bench.stream->clock_offset_ns = INT64_MIN / 2;
    bench.stream->spin_ns = 100000;
    return bench;
}

static void tear_down(struct bench *bench)
{
    close(bench->stream->fd);
    close(bench->stream->epoll_fd);
    close(bench->client);
    close(bench->other[0]);
    close(bench->other[1]);
    serve_free(bench->stream);
}

static int next(struct bench *bench)
{
    return serve_next(bench->stream, SERVE_NOTHING, 0, 0, INT64_MAX);
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

static void put(struct bench *bench, const struct message *message)
{
    uint8_t bytes[256] = { 0 };
    long size = codec_encode(message, bytes + 4);
    CHECK(size > 0 && size < 200);
    bytes[3] = (uint8_t)size;
    CHECK_EQUAL(write(bench->client, bytes, (size_t)size + 4), size + 4);
}

static void a_simple_request_is_taken_and_answered(void)
{
    static const uint8_t sizes[] = { 1, 2, 4, 8 };
    for (int i = 0; i < 8; i++) {
        struct bench bench = set_up();
        uint8_t size = sizes[i / 2], direction = i % 2;
        struct message request = simple(direction, size), answer;
        put(&bench, &request);
        CHECK_EQUAL(next(&bench), SERVE_REQUEST);
        CHECK_EQUAL(bench.stream->request.device_id, 9);
        CHECK_EQUAL(bench.stream->request.address, 0x3f8);
        CHECK_EQUAL(bench.stream->request.size, size);
        uint64_t mask = size == 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
        CHECK(bench.stream->request.value == (direction ? 0x0807060504030201 & mask : 0));
        int kind = direction ? SERVE_FINISH : SERVE_FEEDBACK;
        CHECK_EQUAL(serve_next(bench.stream, kind, 0, 0x1122334455667788, INT64_MAX), SERVE_IDLE);
        uint8_t bytes[256];
        ssize_t n = read(bench.client, bytes, sizeof bytes);
        CHECK(n > 4);
        CHECK_EQUAL(codec_decode(bytes + 4, (size_t)n - 4, &answer), n - 4);
        CHECK_EQUAL(answer.type, direction ? MESSAGE_FINISH : MESSAGE_FEEDBACK);
        CHECK(answer.request == 1 && answer.ack == 1 && answer.seq == 1 && answer.vm_id == VM_ID);
        CHECK_EQUAL(answer.length, direction ? 0 : size);
        CHECK(direction || answer.data[0] == 0x88);
        tear_down(&bench);
    }
}

static void what_a_request_caused_goes_out_before_its_answer(void)
{
    struct bench bench = set_up();
    struct message request = simple(0, 1), caused = { .type = MESSAGE_ACK, .ack = 1 }, first;
    put(&bench, &request);
    CHECK_EQUAL(next(&bench), SERVE_REQUEST);
    bench.stream->before_used = (size_t)codec_encode(&caused, bench.stream->before);
    CHECK_EQUAL(serve_next(bench.stream, SERVE_FEEDBACK, 2, 0, INT64_MAX), SERVE_IDLE);
    uint8_t bytes[256];
    ssize_t n = read(bench.client, bytes, sizeof bytes);
    long size = codec_decode(bytes + 4, (size_t)n - 4, &first);
    CHECK_EQUAL(first.type, MESSAGE_ACK);
    CHECK_EQUAL(codec_decode(bytes + 4 + size, (size_t)(n - 4 - size), &first), n - 4 - size);
    CHECK_EQUAL(first.status, 2);
    CHECK_EQUAL(first.length, 0);
    tear_down(&bench);
}

static void handed_back(struct message request)
{
    struct bench bench = set_up();
    put(&bench, &request);
    CHECK_EQUAL(next(&bench), SERVE_BYTES);
    CHECK_EQUAL(bench.stream->in_used, 4 + codec_size(&request));
    CHECK_EQUAL(bench.stream->received, 0);
    tear_down(&bench);
}

#define HAND_BACK(member, wrong)                                                         \
    do {                                                                                 \
        struct message request = simple(1, 4);                                           \
        request.member = wrong;                                                          \
        handed_back(request);                                                            \
    } while (0)

static void anything_unusual_is_handed_back(void)
{
    HAND_BACK(seq, 2);
    HAND_BACK(ack, 1);
    HAND_BACK(server_id, 9);
    HAND_BACK(vm_id, 9);
    HAND_BACK(client_id, 9);
    HAND_BACK(hypervisor, 9);
    HAND_BACK(elements, 2);
    HAND_BACK(elements, 0);
    HAND_BACK(direction, 2);
    HAND_BACK(size, 3);
    HAND_BACK(size, 0);
    HAND_BACK(length, 3);
    HAND_BACK(length, 0);
    HAND_BACK(time_ns, UINT64_MAX);
    HAND_BACK(time_ns, 1ull << 63);
    HAND_BACK(time_ns, (1ull << 63) - 1);
    handed_back((struct message){ .type = MESSAGE_PING });
    handed_back((struct message){ .type = MESSAGE_CLOCK, .seq = 1 });
}

static void any_bytes_are_handed_back(void)
{
    uint64_t state = 1;
    for (int turn = 0; turn < 2000; turn++) {
        struct bench bench = set_up();
        uint8_t bytes[128];
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t length = 1 + state % sizeof bytes;
        for (size_t i = 0; i < length; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            bytes[i] = (uint8_t)(state >> 56);
        }
        if (length > 6 && turn % 2) /* a good length and type, and then nonsense */
            memcpy(bytes, (uint8_t[]){ 0, 0, 0, (uint8_t)(length - 4), 0x9f, 0x10 }, 6);
        CHECK_EQUAL(write(bench.client, bytes, length), length);
        CHECK_EQUAL(next(&bench), SERVE_BYTES);
        CHECK(memcmp(bench.stream->received_bytes, bytes, length) == 0);
        tear_down(&bench);
    }
}

static void more_than_a_buffer_is_handed_back_in_parts(void)
{
    struct bench bench = set_up();
    static uint8_t bytes[SERVE_BUFFER + 100];
    CHECK_EQUAL(write(bench.client, bytes, sizeof bytes), sizeof bytes);
    CHECK_EQUAL(next(&bench), SERVE_BYTES);
    CHECK_EQUAL(bench.stream->in_used, SERVE_BUFFER);
    CHECK_EQUAL(next(&bench), SERVE_BYTES);
    CHECK_EQUAL(bench.stream->in_used, 100);
    tear_down(&bench);
}

static void a_wait_ends_when_something_else_is_to_be_done(void)
{
    struct bench bench = set_up();
    CHECK_EQUAL(next(&bench), SERVE_IDLE);
    struct message request = simple(0, 1);
    put(&bench, &request);
    CHECK_EQUAL(serve_next(bench.stream, SERVE_NOTHING, 0, 0, FOR_EVER - 1), SERVE_TIMER);
    CHECK_EQUAL(next(&bench), SERVE_REQUEST);
    bench.stream->spin_ns = -1;
    CHECK_EQUAL(write(bench.other[1], "x", 1), 1);
    CHECK_EQUAL(next(&bench), SERVE_OTHER);
    close(bench.client);
    CHECK_EQUAL(next(&bench), SERVE_CLOSED);
    bench.client = dup(bench.stream->fd);
    tear_down(&bench);
}

static void an_answer_that_the_socket_does_not_take_is_kept(void)
{
    struct bench bench = set_up();
    static const uint8_t filler[1024];
    struct message request = simple(0, 4);
    put(&bench, &request);
    CHECK_EQUAL(next(&bench), SERVE_REQUEST);
    while (send(bench.stream->fd, filler, sizeof filler, MSG_DONTWAIT) > 0)
        ;
    CHECK_EQUAL(serve_next(bench.stream, SERVE_FEEDBACK, 0, 5, INT64_MAX), SERVE_BLOCKED);
    struct message answer;
    CHECK_EQUAL(codec_decode(bench.stream->out + 4, bench.stream->out_used - 4, &answer),
                bench.stream->out_used - 4);
    CHECK_EQUAL(answer.request, 1);
    tear_down(&bench);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(a_simple_request_is_taken_and_answered),
        TEST(what_a_request_caused_goes_out_before_its_answer),
        TEST(anything_unusual_is_handed_back),
        TEST(any_bytes_are_handed_back),
        TEST(more_than_a_buffer_is_handed_back_in_parts),
        TEST(a_wait_ends_when_something_else_is_to_be_done),
        TEST(an_answer_that_the_socket_does_not_take_is_kept),
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
