/* The data loop's output: messages into frames, frames into sockets. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "serve/serve_inner.h"

static bool grow(uint8_t **buffer, size_t *size, size_t wanted)
{
    if (wanted <= *size)
        return true;
    size_t fresh = *size ? *size : 4096;
    while (fresh < wanted)
        fresh *= 2;
    uint8_t *grown = realloc(*buffer, fresh);
    if (!grown)
        return false;
    *buffer = grown;
    *size = fresh;
    return true;
}

static void close_frame(struct serve_loop *loop)
{
    uint32_t length = (uint32_t)(loop->out_used - loop->out_frame - SERVE_HEADER);
    length = __builtin_bswap32(length);
    memcpy(loop->out + loop->out_frame, &length, SERVE_HEADER);
}

/* Room for a message, in the frame that is open or in a new one; NULL without memory. */
static uint8_t *room(struct serve_loop *loop, size_t length)
{
    if (!grow(&loop->out, &loop->out_size, loop->out_used + SERVE_HEADER + length))
        return NULL;
    bool full = loop->out_used - loop->out_frame + length > SERVE_HEADER + CODEC_MAX_FRAME;
    if (loop->out_used == 0 || full) {
        if (full)
            close_frame(loop);
        loop->out_frame = loop->out_used;
        loop->out_used += SERVE_HEADER;
    }
    uint8_t *at = loop->out + loop->out_used;
    loop->out_used += length;
    return at;
}

bool out_message(struct serve_loop *loop, const struct message *message)
{
    uint8_t *at = room(loop, (size_t)codec_size(message));
    if (at)
        codec_encode(message, at);
    return at != NULL;
}

bool has_backlog(const struct serve_stream *stream)
{
    return stream->out_used != stream->out_at;
}

bool is_choked(const struct serve_stream *stream)
{
    return stream->out_used - stream->out_at >= SERVE_HIGH_OUT;
}

/*
 * The socket of a busy stream is not asked, as the queue asks it: each look at the others would find
 * it. Where bytes go through memory, the socket carries doorbells, also for room, and is always asked.
 */
void out_set_interest(struct serve_loop *loop, struct serve_stream *stream)
{
    bool choked = is_choked(stream), asked = !choked && !stream->busy;
    bool tells = choked || (has_backlog(stream) && !stream->busy);
    uint32_t interest = (asked ? EPOLLIN : 0u) | (tells ? EPOLLOUT : 0u);
    if (stream->shm.page)
        interest = EPOLLIN;
    if (interest == stream->interest)
        return;
    struct epoll_event event = { .events = interest, .data.ptr = stream };
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, stream->fd, &event);
    stream->interest = interest;
}

/* Sends; an error other than a full socket shows itself at the next receive. */
static size_t send_some(struct serve_stream *stream, const uint8_t *bytes, size_t length)
{
    ssize_t n = stream->shm.page ? shm_stream_give(&stream->shm, bytes, length)
                                  : send(stream->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0)
        return (size_t)n;
    return errno == EAGAIN || errno == EINTR ? 0 : length;
}

/* Gives back most of a buffer that was much too long for what is in it. */
static void shrink(struct serve_stream *stream, size_t wanted)
{
    if (stream->out_size <= SERVE_OUT_KEPT || wanted > stream->out_size / 8)
        return;
    uint8_t *shrunk = realloc(stream->out, stream->out_size / 2);
    if (shrunk) {
        stream->out = shrunk;
        stream->out_size /= 2;
    }
}

static int keep(struct serve_loop *loop, struct serve_stream *stream, const uint8_t *bytes,
                size_t length)
{
    size_t waits = stream->out_used - stream->out_at;
    if (stream->out_at > waits) { /* as much is moved as was sent: the buffer is of what waits */
        memmove(stream->out, stream->out + stream->out_at, waits);
        stream->out_at = 0;
        stream->out_used = waits;
        shrink(stream, waits + length);
    }
    if (!grow(&stream->out, &stream->out_size, stream->out_used + length))
        return SERVE_FULL;
    memcpy(stream->out + stream->out_used, bytes, length);
    stream->out_used += length;
    out_set_interest(loop, stream);
    return stream->out_used - stream->out_at > SERVE_MAX_OUT ? SERVE_FULL : 0;
}

int out_retry(struct serve_loop *loop, struct serve_stream *stream)
{
    if (has_backlog(stream))
        stream->out_at += send_some(stream, stream->out + stream->out_at,
                                    stream->out_used - stream->out_at);
    if (stream->out_at == stream->out_used) {
        free(stream->out);
        stream->out = NULL;
        stream->out_at = stream->out_used = stream->out_size = 0;
    }
    out_set_interest(loop, stream);
    return 0;
}

int out_end(struct serve_loop *loop, struct serve_stream *stream)
{
    size_t length = loop->out_used;
    stream->counters.window_start = stream->counters.confirmed;
    if (length == 0)
        return 0;
    close_frame(loop);
    loop->out_used = loop->out_frame = 0;
    size_t sent = has_backlog(stream) ? 0 : send_some(stream, loop->out, length);
    int found = sent == length ? 0 : keep(loop, stream, loop->out + sent, length - sent);
    if (loop->out_size > SERVE_OUT_KEPT) {
        free(loop->out);
        loop->out = NULL;
        loop->out_size = 0;
    }
    return found;
}

/*
 * Each send may wake the client on another core, which costs as much as many accesses: what a busy
 * stream is told in a few turns goes out together.
 */
int out_hold(struct serve_loop *loop, struct serve_stream *stream)
{
    size_t length = loop->out_used;
    if (++stream->held_turns >= SERVE_HELD_TURNS || length >= SERVE_HELD) {
        int found = out_end(loop, stream);
        return found != 0 ? found : out_flush(loop, stream);
    }
    stream->counters.window_start = stream->counters.confirmed;
    if (length == 0)
        return 0;
    close_frame(loop);
    loop->out_used = loop->out_frame = 0;
    return keep(loop, stream, loop->out, length);
}

int out_flush(struct serve_loop *loop, struct serve_stream *stream)
{
    stream->held_turns = 0;
    return has_backlog(stream) ? out_retry(loop, stream) : 0;
}

/* All of it, with a descriptor. */
static int send_with(int fd, uint8_t *bytes, size_t length, int descriptor)
{
    struct iovec part = { bytes, length };
    _Alignas(struct cmsghdr) uint8_t room[CMSG_SPACE(sizeof descriptor)] = { 0 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room,
                              .msg_controllen = sizeof room };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
    ssize_t n = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0 && (size_t)n < length)
        errno = ENOBUFS;
    return n == (ssize_t)length ? 0 : -1;
}

int serve_share(struct serve_loop *loop, struct serve_stream *stream)
{
    struct shm_stream shm;
    if (has_backlog(stream)) {
        errno = ENOBUFS;
        return -1;
    }
    int memory_fd = shm_stream_make(&shm, stream->fd);
    if (memory_fd < 0)
        return -1;
    close_frame(loop);
    int result = send_with(stream->fd, loop->out, loop->out_used, memory_fd);
    int error = errno;
    close(memory_fd);
    loop->out_used = loop->out_frame = 0;
    if (result < 0) {
        shm_stream_close(&shm);
        errno = error;
        return -1;
    }
    stream->shm = shm;
    out_set_interest(loop, stream); /* a busy stream shares its memory too */
    return 0;
}

int serve_put_interrupt(struct serve_loop *loop, uint32_t line, uint8_t level, uint64_t number)
{
    struct serve_stream *stream = loop->current;
    struct message message = {
        .type = MESSAGE_INTERRUPT,
        .seq = ++stream->counters.sent,
        .ack = stream->counters.received,
        .vm_id = stream->vm_id,
        .hypervisor = stream->hypervisor,
        .client_id = stream->client_id,
        .line = line,
        .level = level,
        .number = number,
    };
    stream->counters.confirmed = stream->counters.posted;
    return out_message(loop, &message) ? 0 : -1;
}

int serve_put(struct serve_loop *loop, const uint8_t *message, size_t length)
{
    uint8_t *at = room(loop, length);
    if (!at)
        return -1;
    memcpy(at, message, length);
    return 0;
}

int serve_flush(struct serve_loop *loop, struct serve_stream *stream)
{
    int found = out_end(loop, stream);
    return found != 0 ? found : out_flush(loop, stream);
}

int serve_send(struct serve_loop *loop, struct serve_stream *stream, const uint8_t *frames,
               size_t length)
{
    if (loop->current == stream)
        out_end(loop, stream);
    out_flush(loop, stream);
    size_t sent = has_backlog(stream) ? 0 : send_some(stream, frames, length);
    return sent == length ? 0 : keep(loop, stream, frames + sent, length - sent);
}
