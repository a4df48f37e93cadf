#define _GNU_SOURCE
#include "serve/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, EVENTS = 64 };

/* One direction: what was read from a socket and not yet taken by the other. */
struct relay_end {
    struct relay_pair *pair;
    struct relay_end *other;
    int fd;
    bool ended;    /* nothing more comes from here */
    uint32_t interest;
    size_t at, used;
    uint8_t held[CHUNK]; /* on its way to the other end */
};

struct relay_pair {
    struct relay_pair *next, *before;
    struct relay_end ends[2];
    bool dead;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

struct relay *relay_new(int mode, int64_t spin_ns)
{
    struct relay *relay = calloc(1, sizeof *relay);
    if (!relay)
        return NULL;
    relay->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    relay->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
    if (relay->epoll_fd < 0 || relay->wake_fd < 0 ||
        epoll_ctl(relay->epoll_fd, EPOLL_CTL_ADD, relay->wake_fd, &event) < 0) {
        int error = errno;
        if (relay->epoll_fd >= 0)
            close(relay->epoll_fd);
        if (relay->wake_fd >= 0)
            close(relay->wake_fd);
        free(relay);
        errno = error;
        return NULL;
    }
    relay->spin_wait = spin_wait_new(mode, spin_ns);
    pthread_mutex_init(&relay->lock, NULL);
    return relay;
}

/* -- pairs -------------------------------------------------------------------------------- */

static void forget(struct relay *relay, struct relay_pair *pair)
{
    pthread_mutex_lock(&relay->lock);
    if (pair->before)
        pair->before->next = pair->next;
    else
        relay->pairs = pair->next;
    if (pair->next)
        pair->next->before = pair->before;
    relay->count--;
    pthread_mutex_unlock(&relay->lock);
    close(pair->ends[0].fd);
    close(pair->ends[1].fd);
    free(pair);
}

static struct relay_pair *pair_of(int one, int other)
{
    struct relay_pair *pair = calloc(1, sizeof *pair);
    if (!pair)
        return NULL;
    int fds[] = { one, other };
    for (int i = 0; i < 2; i++) {
        pair->ends[i].pair = pair;
        pair->ends[i].other = &pair->ends[1 - i];
        pair->ends[i].fd = fds[i];
        pair->ends[i].interest = EPOLLIN;
    }
    return pair;
}

int relay_add(struct relay *relay, int one, int other)
{
    struct relay_pair *pair = pair_of(one, other);
    if (!pair) {
        close(one);
        close(other);
        return -1;
    }
    pthread_mutex_lock(&relay->lock);
    pair->next = relay->pairs;
    if (pair->next)
        pair->next->before = pair;
    relay->pairs = pair;
    relay->count++;
    pthread_mutex_unlock(&relay->lock);
    /* The last one may be served before the first is there: its bytes are sent all the same. */
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = &pair->ends[i] };
        if (epoll_ctl(relay->epoll_fd, EPOLL_CTL_ADD, pair->ends[i].fd, &event) < 0) {
            int error = errno;
            shutdown(one, SHUT_RDWR); /* the thread sees it, if it has one of them already */
            if (i == 0)
                forget(relay, pair);
            errno = error;
            return -1;
        }
    }
    return 0;
}

/* -- bytes -------------------------------------------------------------------------------- */

static void want(struct relay *relay, struct relay_end *end)
{
    uint32_t interest = 0;
    if (!end->ended && end->used == 0)
        interest |= EPOLLIN; /* nothing more is read before the other end has taken this */
    if (end->other->used)
        interest |= EPOLLOUT;
    if (interest == end->interest)
        return;
    end->interest = interest;
    struct epoll_event event = { .events = interest, .data.ptr = end };
    epoll_ctl(relay->epoll_fd, EPOLL_CTL_MOD, end->fd, &event);
}

/* Sends what was read from an end to the other. */
static void push(struct relay_end *end)
{
    while (end->used) {
        ssize_t n = send(end->other->fd, end->held + end->at, end->used,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            end->pair->dead = true;
            return;
        }
        end->at += (size_t)n;
        end->used -= (size_t)n;
    }
    end->at = 0;
    if (end->ended)
        shutdown(end->other->fd, SHUT_WR);
}

static void pull(struct relay_end *end)
{
    if (end->ended || end->used)
        return;
    ssize_t n = recv(end->fd, end->held, CHUNK, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0)
        end->pair->dead = true;
    end->ended = n <= 0;
    end->used = n > 0 ? (size_t)n : 0;
    push(end);
}

/* Serves an end that is ready; whether its pair has ended. */
static bool serve(struct relay *relay, struct relay_end *end, uint32_t events)
{
    struct relay_pair *pair = end->pair;
    if (events & EPOLLOUT)
        push(end->other);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        pull(end);
    if ((events & EPOLLERR) || ((events & EPOLLHUP) && end->used == 0 && end->ended))
        pair->dead = true;
    if (pair->dead || (end->ended && end->other->ended && !end->used && !end->other->used))
        return true;
    want(relay, end);
    want(relay, end->other);
    return false;
}

static int look(struct relay *relay, struct epoll_event *events)
{
    int64_t start = now_ns();
    bool spin = spin_wait_enter(&relay->spin_wait, start);
    int count = 0;
    if (spin) {
        int64_t now = start;
        for (; count == 0 && now - start < relay->spin_wait.spin_ns; now = now_ns())
            count = epoll_wait(relay->epoll_fd, events, EVENTS, 0);
        spin_wait_learn(&relay->spin_wait, count != 0, start, now);
    }
    spin_wait_leave(&relay->spin_wait);
    return count ? count : epoll_wait(relay->epoll_fd, events, EVENTS, -1);
}

void relay_run(struct relay *relay)
{
    struct epoll_event events[EVENTS];
    while (!atomic_load(&relay->closing)) {
        int count = look(relay, events);
        for (int i = 0; i < count; i++) {
            struct relay_end *end = events[i].data.ptr;
            if (!end || !serve(relay, end, events[i].events))
                continue;
            for (int j = i + 1; j < count; j++) /* it may stand there once more */
                if (events[j].data.ptr == end->other)
                    events[j].data.ptr = NULL;
            forget(relay, end->pair);
        }
    }
    spin_wait_end(&relay->spin_wait);
}

unsigned relay_count(struct relay *relay)
{
    pthread_mutex_lock(&relay->lock);
    unsigned count = relay->count;
    pthread_mutex_unlock(&relay->lock);
    return count;
}

void relay_stop(struct relay *relay)
{
    atomic_store(&relay->closing, true);
    eventfd_write(relay->wake_fd, 1);
}

void relay_free(struct relay *relay)
{
    while (relay->pairs)
        forget(relay, relay->pairs);
    close(relay->epoll_fd);
    close(relay->wake_fd);
    pthread_mutex_destroy(&relay->lock);
    free(relay);
}
