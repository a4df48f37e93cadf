#include "bench/load.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "codec.h"
#include "vm/control.h"

enum { HEADER = 4, BUFFER = 64 * 1024, EVENTS = 64, AT_MOST_MS = 10000 };

/* A client at work. */
struct worker {
    struct load_client *client;
    uint64_t acknowledged;  /* sequence number */
    uint32_t next;          /* access to do */
    uint8_t *in;            /* BUFFER bytes */
    size_t in_used;
    uint8_t out[HEADER + CODEC_MAX_HEADER + LOAD_MAX_BATCH * CODEC_WRITE_BYTES];
    size_t out_at, out_used; /* what the socket has not taken yet */
};

struct load {
    const struct load_plan *plan;
    struct load_result *result;
    struct worker *workers;
    size_t count;
    int epoll_fd;
    bool over; /* no more is sent */
};

static uint32_t each(const struct load_plan *plan)
{
    return plan->batch ? plan->batch : 1;
}

/* -- sending ------------------------------------------------------------------------------ */

static struct message head(struct worker *worker, uint8_t type)
{
    struct load_client *client = worker->client;
    return (struct message){ .type = type, .seq = ++client->sent, .ack = client->received,
                             .server_id = client->server_id, .vm_id = client->vm_id,
                             .hypervisor = client->hypervisor, .client_id = client->client_id };
}

static void put_request(struct worker *worker, const struct load_plan *plan)
{
    const struct load_access *access = &plan->accesses[worker->next];
    struct message message = head(worker, MESSAGE_REQUEST);
    worker->next = (worker->next + 1) % plan->access_count;
    message.device_id = access->device_id;
    message.direction = access->direction;
    message.space = access->space;
    message.address = access->address;
    message.size = access->size;
    message.elements = 1;
    message.time_ns = (uint64_t)(monotonic_ns() - worker->client->clock_start_ns);
    message.data = (const uint8_t *)&access->value;
    message.length = access->direction ? access->size : 0;
    worker->out_used = HEADER + (size_t)codec_encode(&message, worker->out + HEADER);
}

static void put_batch(struct worker *worker, const struct load_plan *plan)
{
    uint8_t writes[LOAD_MAX_BATCH * CODEC_WRITE_BYTES];
    uint64_t time_ns = (uint64_t)(monotonic_ns() - worker->client->clock_start_ns);
    for (uint32_t i = 0; i < plan->batch; i++) {
        const struct load_access *access = &plan->accesses[worker->next];
        worker->next = worker->next + 1 == plan->access_count ? 0 : worker->next + 1;
        struct posted_write write = { .device_id = access->device_id, .direction = access->direction,
                                      .space = access->space, .address = access->address,
                                      .size = access->size, .time_ns = time_ns,
                                      .value = access->value };
        codec_encode_write(&write, writes + (size_t)i * CODEC_WRITE_BYTES);
    }
    struct message message = head(worker, MESSAGE_BATCH);
    message.data = writes;
    message.length = plan->batch;
    worker->out_used = HEADER + (size_t)codec_encode(&message, worker->out + HEADER);
}

static bool may_send(const struct load *load, const struct worker *worker)
{
    uint64_t under_way = worker->client->sent - worker->acknowledged;
    if (load->over || worker->out_at < worker->out_used)
        return false;
    if (!load->plan->batch)
        return under_way == 0;
    return (under_way + 1) * load->plan->batch <= worker->client->window;
}

/* Sends what the client may; -1 if its socket is of no more use. */
static int push(struct load *load, struct worker *worker)
{
    for (;;) {
        if (may_send(load, worker)) {
            if (load->plan->batch)
                put_batch(worker, load->plan);
            else
                put_request(worker, load->plan);
            uint32_t length = __builtin_bswap32((uint32_t)(worker->out_used - HEADER));
            memcpy(worker->out, &length, HEADER);
            worker->out_at = 0;
        }
        if (worker->out_at == worker->out_used)
            return 0;
        ssize_t n = send(worker->client->fd, worker->out + worker->out_at,
                         worker->out_used - worker->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        load->result->sends++;
        worker->out_at += (size_t)n;
    }
}

/* -- receiving ---------------------------------------------------------------------------- */

static void confirm(struct load *load, struct worker *worker, uint64_t number)
{
    if (number <= worker->acknowledged)
        return;
    load->result->done += (number - worker->acknowledged) * each(load->plan);
    worker->acknowledged = number;
}

static int on_message(struct load *load, struct worker *worker, const struct message *message)
{
    if (message->type >= MESSAGE_FEEDBACK) {
        if (message->seq != worker->client->received + 1 || message->status) {
            errno = EPROTO;
            return -1;
        }
        worker->client->received = message->seq;
    }
    switch (message->type) {
    case MESSAGE_EMIT:
        load->result->emitted += message->length;
        break;
    case MESSAGE_INTERRUPT:
        load->result->interrupts++;
        break;
    case MESSAGE_FEEDBACK:
    case MESSAGE_FINISH:
    case MESSAGE_ACK:
    case MESSAGE_PONG:
        confirm(load, worker, message->ack);
        break;
    }
    return 0;
}

static int on_frame(struct load *load, struct worker *worker, const uint8_t *in, size_t length)
{
    while (length) {
        struct message message;
        long size = codec_decode(in, length, &message);
        if (size < 0) {
            errno = EPROTO;
            return -1;
        }
        if (on_message(load, worker, &message) < 0)
            return -1;
        in += size;
        length -= (size_t)size;
    }
    return 0;
}

static int pull(struct load *load, struct worker *worker)
{
    ssize_t n = recv(worker->client->fd, worker->in + worker->in_used, BUFFER - worker->in_used,
                     MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (n == 0) {
        errno = ECONNRESET;
        return -1;
    }
    load->result->receives++;
    worker->in_used += (size_t)n;
    size_t at = 0;
    while (worker->in_used - at >= HEADER) {
        uint32_t length;
        memcpy(&length, worker->in + at, HEADER);
        length = __builtin_bswap32(length);
        if (length > BUFFER - HEADER) {
            errno = EPROTO;
            return -1;
        }
        if (worker->in_used - at - HEADER < length)
            break;
        if (on_frame(load, worker, worker->in + at + HEADER, length) < 0)
            return -1;
        at += HEADER + length;
    }
    memmove(worker->in, worker->in + at, worker->in_used - at);
    worker->in_used -= at;
    return 0;
}

/* -- all of them -------------------------------------------------------------------------- */

static int start(struct load *load, struct load_client *clients)
{
    for (size_t i = 0; i < load->count; i++) {
        struct worker *worker = &load->workers[i];
        struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = worker };
        worker->client = &clients[i];
        worker->acknowledged = clients[i].sent;
        worker->in = malloc(BUFFER);
        if (!worker->in || epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, clients[i].fd, &event) < 0)
            return -1;
    }
    return 0;
}

static int look_at_all(struct load *load)
{
    for (size_t i = 0; i < load->count; i++)
        if (pull(load, &load->workers[i]) < 0 || push(load, &load->workers[i]) < 0)
            return -1;
    return 0;
}

/* Serves the clients whose sockets are ready; -1 and errno if something is wrong. */
static int turn(struct load *load)
{
    struct epoll_event events[EVENTS];
    if (load->plan->spin)
        return look_at_all(load);
    int count = epoll_wait(load->epoll_fd, events, EVENTS, AT_MOST_MS);
    if (count == 0)
        errno = ETIMEDOUT;
    if (count <= 0)
        return -1;
    for (int i = 0; i < count; i++) {
        struct worker *worker = events[i].data.ptr;
        if (pull(load, worker) < 0 || push(load, worker) < 0)
            return -1;
    }
    return 0;
}

/* Whether everything that was sent is answered; posted accesses need a ping for that. */
static bool is_quiet(const struct load *load)
{
    for (size_t i = 0; i < load->count; i++) {
        const struct worker *worker = &load->workers[i];
        if (worker->out_at < worker->out_used || worker->acknowledged < worker->client->sent)
            return false;
    }
    return true;
}

static void put_ping(struct worker *worker)
{
    struct message ping = { .type = MESSAGE_PING };
    uint8_t *at = worker->out + worker->out_used;
    size_t used = worker->out_used;
    long size = codec_encode(&ping, at + HEADER);
    uint32_t length = __builtin_bswap32((uint32_t)size);
    memcpy(at, &length, HEADER);
    worker->out_used = used + HEADER + (size_t)size;
}

static int finish(struct load *load)
{
    for (size_t i = 0; i < load->count; i++) {
        struct worker *worker = &load->workers[i];
        if (worker->out_at == worker->out_used)
            worker->out_at = worker->out_used = 0;
        put_ping(worker);
        if (push(load, worker) < 0)
            return -1;
    }
    int64_t until_ns = monotonic_ns() + AT_MOST_MS * 1000000LL;
    while (!is_quiet(load)) {
        if (turn(load) < 0)
            return -1;
        if (monotonic_ns() > until_ns) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
    return 0;
}

static int work(struct load *load, struct load_client *clients)
{
    if (start(load, clients) < 0)
        return -1;
    int64_t started_ns = monotonic_ns();
    while (monotonic_ns() - started_ns < load->plan->duration_ns)
        if (turn(load) < 0)
            return -1;
    load->result->elapsed_ns = monotonic_ns() - started_ns;
    uint64_t done = load->result->done;
    load->over = true;
    int result = finish(load);
    load->result->total = load->result->done;
    load->result->done = done;
    return result;
}

int load_run(struct load_client *clients, size_t count, const struct load_plan *plan,
             struct load_result *result)
{
    if (plan->access_count < 1 || plan->access_count > LOAD_MAX_ACCESSES ||
        plan->batch > LOAD_MAX_BATCH || count == 0) {
        errno = EINVAL;
        return -1;
    }
    struct load load = { .plan = plan, .result = result, .count = count };
    memset(result, 0, sizeof *result);
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load.workers = calloc(count, sizeof *load.workers);
    int failed = load.epoll_fd < 0 || !load.workers ? -1 : work(&load, clients);
    int error = errno;
    for (size_t i = 0; load.workers && i < count; i++)
        free(load.workers[i].in);
    free(load.workers);
    close(load.epoll_fd);
    errno = error;
    return failed;
}
