/* The data loop's waiting: who has something to say; looking for a while, or sleeping at once. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "serve/serve_inner.h"

enum {
    LOOK_EVERY = 16,           /* receives from the polled stream */
    LOOK_EVERY_IN_MEMORY = 256,
};

/* -- receiving ---------------------------------------------------------------------------- */

enum how {
    LOOK,  /* what is there */
    ASK,   /* the same, to be told by epoll of what comes later, and whether the client is there */
    SLEEP, /* until something is there, for SERVE_NAP_US at most */
};

/* As recv. A look leaves this end looking: let_go() has to follow some time. */
static ssize_t take_in(struct serve_loop *loop, struct serve_stream *stream, uint8_t *to,
                       enum how how)
{
    struct shm_stream *shm = &stream->shm;
    if (!shm->page)
        return recv(stream->fd, to, SERVE_CHUNK, how == SLEEP ? 0 : MSG_DONTWAIT);
    if (how == ASK)
        shm_stream_ask(shm);
    else if (!shm_stream_looks(shm))
        shm_stream_look(shm);
    if (has_backlog(stream))
        out_retry(loop, stream);
    size_t room = is_choked(stream) ? 0 : SERVE_CHUNK;
    return shm_stream_receive(shm, to, room, how == SLEEP ? SERVE_NAP_US : 0);
}

/* Starts the stream's turn, if it has something to say; else current stays NULL. */
static int receive(struct serve_loop *loop, struct serve_stream *stream, enum how how)
{
    if (turn_is_awaited(stream)) {
        if (how == ASK)
            turn_stirred(loop, stream);
        return SERVE_NOTHING;
    }
    size_t kept = stream->in_used;
    ssize_t n = take_in(loop, stream, loop->turn.buffer + kept, how);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return SERVE_NOTHING;
    loop->exchange.stream = stream->id;
    if (n <= 0) {
        loop->error_number = n < 0 ? errno : 0;
        return SERVE_CLOSED;
    }
    if (kept) {
        memcpy(loop->turn.buffer, stream->in, kept);
        free(stream->in);
        stream->in = NULL;
        stream->in_used = 0;
    }
    loop->now_ns = stream->heard_ns = serve_now_ns();
    loop->turn.at = loop->turn.frame_end = 0;
    loop->turn.end = kept + (size_t)n;
    turn_begin(loop, stream);
    return SERVE_NOTHING;
}

int serve_receive(struct serve_loop *loop, struct serve_stream *stream)
{
    return receive(loop, stream, ASK);
}

static int take_event(struct serve_loop *loop, const struct epoll_event *event)
{
    if (event->events == 0)
        return SERVE_NOTHING; /* of a stream that is gone */
    if (event->data.u64 & 1) {
        loop->other_fd = (int)(event->data.u64 >> 1);
        return SERVE_OTHER;
    }
    struct serve_stream *stream = event->data.ptr;
    if (turn_is_awaited(stream)) {
        turn_stirred(loop, stream);
        return SERVE_NOTHING;
    }
    if (event->events & EPOLLOUT)
        out_retry(loop, stream);
    bool readable = event->events & ~(uint32_t)EPOLLOUT;
    return readable ? receive(loop, stream, ASK) : SERVE_NOTHING;
}

/* -- waiting ------------------------------------------------------------------------------ */

static int sleep_until(struct serve_loop *loop, int64_t due_ns)
{
    int64_t left_ns = due_ns == INT64_MAX ? -1 : due_ns - serve_now_ns();
    if (due_ns != INT64_MAX && left_ns < 0)
        left_ns = 0;
    struct timespec left = { left_ns / 1000000000, left_ns % 1000000000 };
#ifdef SYS_epoll_pwait2
    long count = syscall(SYS_epoll_pwait2, loop->epoll_fd, loop->events, SERVE_EVENTS,
                         left_ns < 0 ? NULL : &left, NULL, 0);
    if (count >= 0 || errno != ENOSYS)
        return (int)count;
#endif
    struct pollfd set = { .fd = loop->epoll_fd, .events = POLLIN }; /* epoll_wait has only ms */
    int ready = ppoll(&set, 1, left_ns < 0 ? NULL : &left, NULL);
    return ready <= 0 ? ready : epoll_wait(loop->epoll_fd, loop->events, SERVE_EVENTS, 0);
}

/* Who has something to say now, or at due_ns at the latest; 0: nobody. */
static int look(struct serve_loop *loop, bool sleep, int64_t due_ns)
{
    if (loop->polled && loop->polled->shm.page && shm_stream_looks(&loop->polled->shm)) {
        loop->since_look = 0;
        int found = receive(loop, loop->polled, ASK);
        if (found != SERVE_NOTHING || loop->current)
            return found;
    }
    int count = sleep ? sleep_until(loop, due_ns)
                      : epoll_wait(loop->epoll_fd, loop->events, SERVE_EVENTS, 0);
    loop->now_ns = serve_now_ns();
    loop->event_at = 0;
    loop->event_count = count > 0 ? count : 0;
    loop->since_look = 0;
    loop->timer_told = loop->timer_told && count > 0;
    if (count > 0) {
        bool single = count == 1 && !(loop->events[0].data.u64 & 1);
        loop->polled = single ? loop->events[0].data.ptr : NULL;
    }
    return count < 0 && errno == EINTR ? SERVE_SIGNAL : SERVE_NOTHING;
}

static unsigned look_every(const struct serve_stream *stream)
{
    return stream->shm.page ? LOOK_EVERY_IN_MEMORY : LOOK_EVERY;
}

/* Looks, without sleeping, until something comes, the time is over or a timer is due. */
static int spin(struct serve_loop *loop)
{
    struct spin_wait *spin_wait = &loop->spin_wait;
    int64_t start_ns = serve_now_ns(), now_ns = start_ns;
    int64_t due_ns = (int64_t)loop->exchange.due_ns;
    for (;;) {
        int found;
        if (loop->polled && !has_backlog(loop->polled) && ++loop->since_look < look_every(loop->polled))
            found = receive(loop, loop->polled, LOOK);
        else
            found = look(loop, false, 0);
        if (found != SERVE_NOTHING || loop->current || loop->event_count) {
            spin_wait_learn(spin_wait, true, start_ns, serve_now_ns());
            return found;
        }
        now_ns = serve_now_ns();
        if (now_ns >= due_ns)
            break;
        if (spin_wait->mode == SPIN_WAIT_ADAPTIVE && now_ns - start_ns >= spin_wait->spin_ns) {
            spin_wait_learn(spin_wait, false, start_ns, now_ns);
            break;
        }
    }
    loop->now_ns = now_ns;
    return SERVE_NOTHING;
}

/*
 * Whether to sleep in recv: one system call where epoll takes two. It notices nobody else, so it is
 * for a stream that is alone and has just spoken, with nothing else due during the nap; and now and
 * then there is a look at the listeners and signals.
 */
static bool is_alone(struct serve_loop *loop, int64_t due_ns)
{
    return loop->streams == 1 && loop->polled && !loop->idle &&
           !has_backlog(loop->polled) && ++loop->since_look < LOOK_EVERY &&
           due_ns - loop->now_ns > SERVE_NAP_US * INT64_C(1000);
}

static int nap(struct serve_loop *loop)
{
    int found = receive(loop, loop->polled, SLEEP);
    loop->idle = found == SERVE_NOTHING && !loop->current;
    if (loop->idle)
        loop->now_ns = serve_now_ns();
    return found;
}

/* Where streams wait in the queue: those who ask for little first, then one of these. */
static int serve_busy(struct serve_loop *loop)
{
    if (!loop->queue_is_next) {
        loop->queue_is_next = true;
        int found = look(loop, false, 0);
        if (found != SERVE_NOTHING || loop->current || loop->event_count)
            return found;
    }
    loop->queue_is_next = false;
    return turn_from_queue(loop);
}

int serve_wait(struct serve_loop *loop)
{
    int64_t due_ns = (int64_t)loop->exchange.due_ns;
    if (loop->now_ns >= due_ns && !loop->timer_told) {
        loop->timer_told = true; /* once; then it is the streams' turn, however late it is */
        return SERVE_TIMER;
    }
    if (loop->event_at < loop->event_count) {
        loop->timer_told = false;
        return take_event(loop, &loop->events[loop->event_at++]);
    }
    loop->event_count = 0;
    if (loop->queue)
        return serve_busy(loop);
    if (loop->now_ns < due_ns) {
        bool looks = spin_wait_enter(&loop->spin_wait, loop->now_ns);
        int found = looks ? spin(loop) : SERVE_NOTHING;
        spin_wait_leave(&loop->spin_wait);
        if (found != SERVE_NOTHING || loop->current || loop->event_count ||
            loop->now_ns >= due_ns || loop->spin_wait.mode == SPIN_WAIT_SPIN)
            return found;
    }
    if (is_alone(loop, due_ns))
        return nap(loop);
    loop->idle = false;
    return look(loop, true, due_ns);
}
