/* The data loop: its streams, and whose turn it is. */
#include "serve/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "serve/serve_inner.h"

struct serve_loop *serve_new(int mode, int64_t spin_ns, int64_t turn_ns)
{
    struct serve_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return NULL;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->spin_wait = spin_wait_new(mode, spin_ns);
    loop->exchange.due_ns = INT64_MAX;
    loop->turn_ns = turn_ns;
    loop->turn.buffer = malloc(SERVE_BUFFER);
    if (loop->epoll_fd < 0 || !loop->turn.buffer) {
        if (loop->epoll_fd >= 0)
            close(loop->epoll_fd);
        free(loop->turn.buffer);
        free(loop);
        return NULL;
    }
    return loop;
}

void serve_free(struct serve_loop *loop)
{
    spin_wait_end(&loop->spin_wait);
    close(loop->epoll_fd);
    free(loop->out);
    free(loop->turn.buffer);
    turn_free_spares(loop);
    free(loop);
}

/* A stream that is waited for alone is waited for in recv itself; all other calls say that they do
 * not want to sleep. */
static bool may_sleep(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    struct timeval nap = { .tv_usec = SERVE_NAP_US };
    return flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &nap, sizeof nap) == 0;
}

struct serve_stream *serve_add(struct serve_loop *loop, int fd, uint32_t id)
{
    struct serve_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = stream };
    if (!may_sleep(fd) || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        free(stream);
        return NULL;
    }
    stream->fd = fd;
    stream->id = id;
    stream->interest = EPOLLIN;
    stream->heard_ns = serve_now_ns();
    loop->streams++;
    return stream;
}

void serve_remove(struct serve_loop *loop, struct serve_stream *stream)
{
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, stream->fd, NULL);
    loop->streams--;
    for (int i = loop->event_at; i < loop->event_count; i++)
        if (loop->events[i].data.ptr == stream)
            loop->events[i].events = 0;
    if (loop->current == stream) {
        loop->current = NULL;
        loop->turn.pending = 0;
        loop->exchange.status = loop->exchange.ack = loop->exchange.pass = 0;
        loop->out_used = loop->out_frame = 0;
    }
    if (loop->polled == stream)
        loop->polled = NULL;
    turn_forget(loop, stream);
    shm_stream_close(&stream->shm);
    free(stream->in);
    free(stream->out);
    free(stream->accesses);
    free(stream);
}

/* What is watched beside streams is told from a pointer by its lowest bit. */
int serve_watch(struct serve_loop *loop, int fd, int on)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = (uint64_t)fd << 1 | 1 };
    return epoll_ctl(loop->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &event);
}

void serve_pause(struct serve_loop *loop)
{
    loop->current->unfinished = true;
}

int serve_next(struct serve_loop *loop)
{
    bool unfinished = loop->current && loop->current->unfinished;
    if (!unfinished && loop->turn.pending && !serve_answer(loop))
        return SERVE_FULL;
    for (;;) {
        int found;
        if (!loop->current) {
            found = serve_wait(loop);
        } else if (turn_is_over(loop)) {
            found = turn_park(loop);
        } else if (loop->current->unfinished) {
            loop->current->unfinished = false;
            loop->served++;
            return SERVE_RESUME;
        } else if ((found = serve_messages(loop)) == SERVE_NOTHING) {
            found = turn_end(loop);
        } else {
            loop->served++;
        }
        if (found != SERVE_NOTHING)
            return found;
    }
}
