#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "codec.h"

enum { FRAME_HEADER = 4, LOOK_AROUND_EVERY = 32 };

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

struct serve_stream *serve_new(void)
{
    return calloc(1, sizeof(struct serve_stream));
}

void serve_free(struct serve_stream *stream)
{
    free(stream);
}

static bool send_answer(struct serve_stream *stream, int answer, uint8_t status, uint64_t value)
{
    uint8_t data[8];
    memcpy(data, &value, sizeof data);
    struct message message = {
        .type = answer == SERVE_FEEDBACK ? MESSAGE_FEEDBACK : MESSAGE_FINISH,
        .seq = ++stream->sent,
        .ack = stream->received,
        .vm_id = stream->vm_id,
        .hypervisor = stream->hypervisor,
        .client_id = stream->client_id,
        .request = stream->received,
        .status = status,
        .data = data,
        .length = status ? 0 : stream->request.size,
    };
    size_t length = stream->before_used;
    memcpy(stream->out + FRAME_HEADER, stream->before, length);
    length += (size_t)codec_encode(&message, stream->out + FRAME_HEADER + length);
    uint32_t header = __builtin_bswap32((uint32_t)length);
    memcpy(stream->out, &header, FRAME_HEADER);
    stream->out_used = FRAME_HEADER + length;
    stream->before_used = 0;
    ssize_t sent = send(stream->fd, stream->out, stream->out_used, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == (ssize_t)stream->out_used) {
        stream->out_used = 0;
        return true;
    }
    if (sent > 0) {
        memmove(stream->out, stream->out + sent, stream->out_used - (size_t)sent);
        stream->out_used -= (size_t)sent;
    }
    return false; /* an error will show itself when Python sends the rest */
}

/* Whether what was received at a time is exactly one simple request that is in turn. */
static bool is_simple(struct serve_stream *stream, int64_t now)
{
    struct message message;
    uint32_t length;
    if (stream->in_used < FRAME_HEADER)
        return false;
    memcpy(&length, stream->received_bytes, FRAME_HEADER);
    if (__builtin_bswap32(length) + FRAME_HEADER != stream->in_used)
        return false;
    long size = codec_decode(stream->received_bytes + FRAME_HEADER, stream->in_used - FRAME_HEADER, &message);
    if (size + FRAME_HEADER != (long)stream->in_used || message.type != MESSAGE_REQUEST ||
        message.seq != stream->received + 1 || message.ack > stream->sent ||
        message.server_id != stream->server_id || message.vm_id != stream->vm_id ||
        message.hypervisor != stream->hypervisor || message.client_id != stream->client_id ||
        (int64_t)message.time_ns < 0 ||
        (int64_t)message.time_ns - now > stream->clock_highest_ns || message.elements != 1 || message.direction > 1 ||
        message.length != (message.direction ? message.size : 0u) ||
        !(message.size == 1 || message.size == 2 || message.size == 4 || message.size == 8))
        return false;
    stream->received = message.seq;
    if (message.ack > stream->acknowledged)
        stream->acknowledged = message.ack;
    stream->request = (struct serve_request){
        .seq = message.seq,
        .sent = stream->sent,
        .address = message.address,
        .time_ns = message.time_ns,
        .device_id = message.device_id,
        .direction = message.direction,
        .space = message.space,
        .size = message.size,
    };
    memcpy(&stream->request.value, message.data, message.length);
    return true;
}

static bool others_wait(struct serve_stream *stream)
{
    struct pollfd epoll = { .fd = stream->epoll_fd, .events = POLLIN };
    struct pollfd own = { .fd = stream->fd, .events = POLLIN };
    return poll(&epoll, 1, 0) > 0 && poll(&own, 1, 0) == 0;
}

int serve_next(struct serve_stream *stream, int answer, uint8_t status, uint64_t value,
               int64_t due_ns)
{
    if (answer != SERVE_NOTHING && !send_answer(stream, answer, status, value))
        return SERVE_BLOCKED;
    int64_t start = now_ns();
    if (start >= due_ns)
        return SERVE_TIMER; /* also when the client never stops asking */
    for (unsigned turns = 1;; turns++) {
        ssize_t n = recv(stream->fd, stream->received_bytes, sizeof stream->received_bytes, MSG_DONTWAIT);
        int64_t now = now_ns();
        if (n > 0) {
            stream->in_used = (size_t)n;
            if (!is_simple(stream, now))
                return SERVE_BYTES;
            int64_t offset = (int64_t)stream->request.time_ns - now;
            if (offset > stream->clock_offset_ns)
                stream->clock_offset_ns = offset;
            return SERVE_REQUEST;
        }
        if (n == 0)
            return SERVE_CLOSED;
        if (errno != EAGAIN && errno != EINTR) {
            stream->error_number = errno;
            return SERVE_FAILED;
        }
        if (now >= due_ns)
            return SERVE_TIMER;
        if (stream->spin_ns >= 0 && now - start >= stream->spin_ns)
            return SERVE_IDLE;
        if (turns % LOOK_AROUND_EVERY == 0 && others_wait(stream))
            return SERVE_OTHER;
    }
}
