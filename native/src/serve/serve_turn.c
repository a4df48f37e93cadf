/* The data loop's fairness: how long a stream's turn lasts, and who comes next. */
#include <stdlib.h>
#include <string.h>

#include "serve/serve_inner.h"

/* -- the queue ---------------------------------------------------------------------------- */

static void enqueue(struct serve_loop *loop, struct serve_stream *stream)
{
    stream->queued = true;
    stream->next = NULL;
    if (loop->queue)
        loop->queue_end->next = stream;
    else
        loop->queue = stream;
    loop->queue_end = stream;
}

static void dequeue(struct serve_loop *loop, struct serve_stream *stream)
{
    struct serve_stream *before = NULL, **at = &loop->queue;
    for (; *at != stream; at = &(*at)->next)
        before = *at;
    *at = stream->next;
    if (loop->queue_end == stream)
        loop->queue_end = before;
    stream->queued = false;
}

/* One that is to read first what it was told is not in the queue; room for more brings it there. */
static void enqueue_unless_choked(struct serve_loop *loop, struct serve_stream *stream)
{
    if (!stream->queued && (!is_choked(stream) || stream->shm.ended))
        enqueue(loop, stream);
}

bool turn_is_awaited(const struct serve_stream *stream)
{
    return stream->queued || stream->parked.buffer || (stream->busy && is_choked(stream));
}

static void set_busy(struct serve_loop *loop, struct serve_stream *stream, bool busy)
{
    stream->busy = busy;
    out_set_interest(loop, stream);
}

void turn_stirred(struct serve_loop *loop, struct serve_stream *stream)
{
    if (stream->shm.page)
        shm_stream_ask(&stream->shm);
    if (has_backlog(stream))
        out_retry(loop, stream);
    enqueue_unless_choked(loop, stream);
}

void turn_forget(struct serve_loop *loop, struct serve_stream *stream)
{
    if (stream->queued)
        dequeue(loop, stream);
    free(stream->parked.buffer);
    stream->parked.buffer = NULL;
}

/* -- buffers ------------------------------------------------------------------------------ */

static uint8_t *get_buffer(struct serve_loop *loop)
{
    uint8_t *buffer = loop->spares;
    if (!buffer)
        return malloc(SERVE_BUFFER);
    memcpy(&loop->spares, buffer, sizeof loop->spares);
    loop->spare_count--;
    return buffer;
}

static void put_buffer(struct serve_loop *loop, uint8_t *buffer)
{
    if (loop->spare_count >= SERVE_SPARES) {
        free(buffer);
        return;
    }
    memcpy(buffer, &loop->spares, sizeof loop->spares);
    loop->spares = buffer;
    loop->spare_count++;
}

void turn_free_spares(struct serve_loop *loop)
{
    while (loop->spares)
        free(get_buffer(loop));
}

/* -- turns -------------------------------------------------------------------------------- */

static void set_end(struct serve_loop *loop, int64_t now_ns)
{
    int64_t length_ns = loop->turn_ns * (loop->streams > 1 ? 1 : SERVE_LONGER);
    loop->exchange.turn_end_ns = (uint64_t)(now_ns + length_ns);
}

void turn_begin(struct serve_loop *loop, struct serve_stream *stream)
{
    loop->current = stream;
    loop->exchange.stream = stream->id;
    loop->served = 0;
    set_end(loop, loop->now_ns);
}

/* Whether anybody else is to be looked after, now that a turn is over. */
static bool others_wait(struct serve_loop *loop, int64_t now_ns)
{
    if (loop->queue || loop->event_at < loop->event_count ||
        (now_ns >= (int64_t)loop->exchange.due_ns && !loop->timer_told) ||
        (loop->polled && loop->polled != loop->current && loop->polled->shm.page &&
         shm_stream_looks(&loop->polled->shm)))
        return true;
    int count = epoll_wait(loop->epoll_fd, loop->events, SERVE_EVENTS, 0);
    loop->event_at = 0;
    loop->event_count = count > 0 ? count : 0;
    for (int i = 0; i < loop->event_count; i++)
        if (loop->events[i].data.ptr != loop->current)
            return true;
    loop->event_count = 0;
    return false;
}

bool turn_is_over(struct serve_loop *loop)
{
    bool all_done = !loop->current->unfinished && loop->turn.at == loop->turn.end;
    if (!loop->served || all_done || loop->exchange.pass)
        return false; /* each turn brings the stream on, and Python's word is for this message */
    if (loop->out_used >= SERVE_HIGH_OUT)
        return true;
    int64_t now_ns = serve_now_ns();
    if (now_ns < (int64_t)loop->exchange.turn_end_ns)
        return false;
    if (others_wait(loop, now_ns))
        return true;
    set_end(loop, now_ns);
    return false;
}

int turn_park(struct serve_loop *loop)
{
    struct serve_stream *stream = loop->current;
    uint8_t *fresh = get_buffer(loop);
    if (!fresh)
        return SERVE_FULL;
    stream->parked = loop->turn;
    loop->turn = (struct serve_turn){ .buffer = fresh };
    set_busy(loop, stream, true);
    int found = out_hold(loop, stream);
    if (found != 0)
        return found;
    loop->current = NULL;
    if (is_choked(stream))
        turn_stirred(loop, stream); /* who makes room from now on says so */
    else
        enqueue(loop, stream);
    return SERVE_NOTHING;
}

static void unpark(struct serve_loop *loop, struct serve_stream *stream)
{
    put_buffer(loop, loop->turn.buffer);
    loop->turn = stream->parked;
    stream->parked.buffer = NULL;
    loop->now_ns = stream->heard_ns = serve_now_ns(); /* it was heard, and is not silent yet */
    turn_begin(loop, stream);
}

int turn_from_queue(struct serve_loop *loop)
{
    struct serve_stream *stream = loop->queue;
    dequeue(loop, stream);
    loop->timer_told = false;
    if (stream->parked.buffer) {
        unpark(loop, stream);
        return SERVE_NOTHING;
    }
    int found = serve_receive(loop, stream);
    if (loop->current != stream)
        set_busy(loop, stream, false);
    return found;
}

/* Keeps the beginning of a frame for the stream's next turn, and sends what is to be said. */
int turn_end(struct serve_loop *loop)
{
    struct serve_stream *stream = loop->current;
    size_t rest = loop->turn.end - loop->turn.at;
    uint8_t *kept = NULL;
    if (rest && !(kept = malloc(rest)))
        return SERVE_FULL;
    if (rest)
        memcpy(kept, loop->turn.buffer + loop->turn.at, rest);
    stream->in = kept;
    stream->in_used = rest;
    int found = out_end(loop, stream);
    if (found != 0)
        return found;
    loop->current = NULL;
    if (stream->busy)
        out_flush(loop, stream);
    if (stream->busy && is_choked(stream))
        turn_stirred(loop, stream);
    else if (stream->busy)
        enqueue_unless_choked(loop, stream);
    return SERVE_NOTHING;
}
