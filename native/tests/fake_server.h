/*
 * The server's end of a socket pair, played by a test; bytes go through memory (shm_stream.h) where the
 * environment has OVER_MEMORY; and the client's calls in threads of their
 * own, so that a test reads from top to bottom: begin a call, hear it, answer it, end it.
 */
#ifndef KVMSHIM_TEST_FAKE_SERVER_H
#define KVMSHIM_TEST_FAKE_SERVER_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "link/link.h"

enum {
    SERVER_ID = 3, VM_ID = 4, CLIENT_ID = 5, HYPERVISOR = 1,
    AT_MOST_MS = 20000, /* for what takes microseconds */
    IRQ_ROOM = 4096,
};

/* -- interrupt lines: the linker brings the link's ioctl here (-Wl,--wrap=ioctl) -- */

struct irq_log {
    int count;
    int error; /* what the next ioctl fails with */
    struct { uint32_t line, level; } set[IRQ_ROOM];
};
extern struct irq_log irqs;

/* -- the server -- */

struct bench {
    struct control *control;
    struct link *link;
    int fd; /* the server's end */
    int client_fd;
    struct shm_stream shm;
    uint64_t sent, received;
    uint8_t *frame;
    size_t frame_at, frame_length;
    pthread_t event_thread;
    bool serving;
};

static inline struct link_setup usual_setup(void)
{
    return (struct link_setup){
        .memory_fd = -1, .server_id = SERVER_ID, .vm_id = VM_ID, .client_id = CLIENT_ID, .hypervisor = HYPERVISOR,
        .window = 4096, .wait_mode = LINK_ADAPTIVE, .spin_ns = 20000,
        .heartbeat_ns = 5000000000, .deadline_ns = 20000000000, .flush_after_ns = 1000000,
    };
}

static inline struct bench *set_up_with(struct link_setup setup)
{
    struct bench *bench = calloc(1, sizeof *bench);
    int fds[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    memset(&irqs, 0, sizeof irqs);
    bench->client_fd = setup.fd = fds[0];
    bench->fd = fds[1];
    bench->frame = malloc(CODEC_MAX_FRAME);
    bench->control = control_new(-1);
    if (getenv("OVER_MEMORY"))
        CHECK((setup.memory_fd = shm_stream_make(&bench->shm, bench->fd)) >= 0);
    bench->link = link_new(bench->control, &setup);
    if (setup.memory_fd >= 0)
        close(setup.memory_fd);
    CHECK(bench->control && bench->link);
    return bench;
}

static inline struct bench *set_up(void)
{
    return set_up_with(usual_setup());
}

static inline void *serve_thread(void *link)
{
    link_serve(link);
    return NULL;
}

static inline void start_event_thread(struct bench *bench)
{
    CHECK_EQUAL(pthread_create(&bench->event_thread, NULL, serve_thread, bench->link), 0);
    bench->serving = true;
}

static inline void tear_down(struct bench *bench)
{
    link_close(bench->link);
    if (bench->serving)
        pthread_join(bench->event_thread, NULL);
    close(bench->client_fd);
    if (bench->fd >= 0)
        close(bench->fd);
    link_free(bench->link);
    shm_stream_close(&bench->shm);
    control_free(bench->control);
    free(bench->frame);
    free(bench);
}

static inline void hang_up(struct bench *bench)
{
    close(bench->fd);
    bench->fd = -1;
}

/* Whether fd becomes readable in time. */
static inline bool readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    return poll(&poll_fd, 1, timeout_ms) == 1;
}

static inline ssize_t take_some(struct bench *bench, uint8_t *to, size_t length)
{
    if (!bench->shm.page) {
        CHECK(readable(bench->fd, AT_MOST_MS));
        return read(bench->fd, to, length);
    }
    for (;;) {
        shm_stream_await_doorbell(&bench->shm);
        ssize_t n = shm_stream_take(&bench->shm, to, length);
        if (n != 0)
            return n;
        CHECK(readable(bench->fd, AT_MOST_MS));
        CHECK(shm_stream_hear(&bench->shm) > 0);
    }
}

static inline void read_fully(struct bench *bench, void *to, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = take_some(bench, (uint8_t *)to + done, length - done);
        CHECK(n > 0);
        done += (size_t)n;
    }
}

/* Whether the client has said nothing that was not heard. */
static inline bool is_silent(struct bench *bench)
{
    uint8_t byte;
    return bench->shm.page ? shm_stream_take(&bench->shm, &byte, 1) == 0 : !readable(bench->fd, 0);
}

static inline void write_fully(struct bench *bench, const void *from, size_t length)
{
    for (size_t done = 0; done < length;) {
        const uint8_t *rest = (const uint8_t *)from + done;
        ssize_t n = bench->shm.page ? shm_stream_give(&bench->shm, rest, length - done)
                                     : write(bench->fd, rest, length - done);
        if (n == 0) {
            shm_stream_sleep(&bench->shm, 1000); /* until there is room */
            continue;
        }
        CHECK(n > 0);
        done += (size_t)n;
    }
}

/* The client's next message; its data is good until the next call. */
static inline struct message hear(struct bench *bench)
{
    if (bench->frame_at == bench->frame_length) {
        uint32_t length;
        read_fully(bench, &length, 4);
        bench->frame_length = __builtin_bswap32(length);
        bench->frame_at = 0;
        CHECK(bench->frame_length > 0 && bench->frame_length <= CODEC_MAX_FRAME);
        read_fully(bench, bench->frame, bench->frame_length);
    }
    struct message message;
    long size = codec_decode(bench->frame + bench->frame_at,
                             bench->frame_length - bench->frame_at, &message);
    CHECK(size > 0);
    bench->frame_at += (size_t)size;
    if (message.type >= MESSAGE_REQUEST) {
        CHECK_EQUAL(message.seq, ++bench->received);
        CHECK_EQUAL(message.server_id, SERVER_ID);
        CHECK_EQUAL(message.vm_id, VM_ID);
        CHECK_EQUAL(message.client_id, CLIENT_ID);
        CHECK_EQUAL(message.hypervisor, HYPERVISOR);
    }
    if (message.type != MESSAGE_PING)
        CHECK(message.ack <= bench->sent);
    return message;
}

static inline struct message hear_type(struct bench *bench, uint8_t type)
{
    struct message message = hear(bench);
    CHECK_EQUAL(message.type, type);
    return message;
}

/* Numbers a server's message and gives it this stream's identifiers. */
static inline struct message stamped(struct bench *bench, struct message message)
{
    if (message.type >= MESSAGE_FEEDBACK)
        message.seq = ++bench->sent;
    message.vm_id = VM_ID;
    message.client_id = CLIENT_ID;
    message.hypervisor = HYPERVISOR;
    message.ack = bench->received;
    return message;
}

static inline void put_frame(struct bench *bench, const uint8_t *payload, size_t length)
{
    uint32_t header = __builtin_bswap32((uint32_t)length);
    write_fully(bench, &header, 4);
    write_fully(bench, payload, length);
}

/* Messages in one frame, as they are. */
static inline void tell_exactly(struct bench *bench, const struct message *messages, size_t count)
{
    static uint8_t payload[CODEC_MAX_FRAME];
    size_t length = 0;
    for (size_t i = 0; i < count; i++)
        length += (size_t)codec_encode(&messages[i], payload + length);
    put_frame(bench, payload, length);
}

static inline void tell(struct bench *bench, struct message message)
{
    message = stamped(bench, message);
    tell_exactly(bench, &message, 1);
}

static inline struct message feedback_of(uint64_t request, const void *data, uint32_t length)
{
    return (struct message){ .type = MESSAGE_FEEDBACK, .request = request, .data = data,
                             .length = length };
}

static inline struct message finish_of(uint64_t request)
{
    return (struct message){ .type = MESSAGE_FINISH, .request = request };
}

static inline struct message interrupt_of(uint32_t line, uint8_t level, uint64_t number)
{
    return (struct message){ .type = MESSAGE_INTERRUPT, .line = line, .level = level,
                             .number = number };
}

/* -- the client -- */

enum { IN, OUT };

struct call {
    struct link *link;
    int (*function)(struct link *, const struct link_access *);
    struct link_access access;
    uint8_t data[CODEC_MAX_DATA];
    int result;
    pthread_t thread;
};

static inline void *call_thread(void *argument)
{
    struct call *call = argument;
    call->result = call->function(call->link, &call->access);
    return NULL;
}

static inline struct link_access access_of(uint8_t direction, uint8_t size, uint8_t *data)
{
    return (struct link_access){ .device_id = 9, .direction = direction, .size = size,
                                 .address = 0x3f8, .elements = 1, .data = data };
}

static inline int post(struct link *link, const struct link_access *access)
{
    uint64_t seq;
    return link_post_at(link, access, control_time_ns(link->control), &seq);
}

/* Starts link_request() or post() in a thread. */
static inline void begin(struct call *call, struct bench *bench, uint8_t direction, uint8_t size,
                         int (*function)(struct link *, const struct link_access *))
{
    call->link = bench->link;
    call->function = function;
    call->access = access_of(direction, size, call->data);
    CHECK_EQUAL(pthread_create(&call->thread, NULL, call_thread, call), 0);
}

static inline int end(struct call *call)
{
    CHECK_EQUAL(pthread_join(call->thread, NULL), 0);
    return call->result;
}

static inline int post_byte(struct bench *bench, uint8_t value)
{
    struct link_access access = access_of(OUT, 1, &value);
    return post(bench->link, &access);
}

#endif
