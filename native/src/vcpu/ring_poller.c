#define _GNU_SOURCE /* ppoll */
#include "vcpu/ring_poller.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "vcpu/vcpu.h"

enum { WOKEN_AT_ONCE = 64 };

/* Lock order: life before rings. */
static struct {
    pthread_mutex_t life;  /* held while the thread is started or ended */
    pthread_mutex_t rings; /* held while rings are looked at */
    struct coalesced *first;
    unsigned awake;
    int epoll_fd, end_fd; /* each ring's idle_fd is in the set, and end_fd */
    pthread_t thread;
    bool ending;
} poller = { .life = PTHREAD_MUTEX_INITIALIZER, .rings = PTHREAD_MUTEX_INITIALIZER };

/* -- the thread ------------------------------------------------------------------------------------ */

static void wake_notified(void)
{
    struct epoll_event events[WOKEN_AT_ONCE];
    int count = epoll_wait(poller.epoll_fd, events, WOKEN_AT_ONCE, 0);
    for (int i = 0; i < count; i++) {
        struct coalesced *ring = events[i].data.ptr;
        if (!ring)
            continue; /* the end */
        poller.awake += ring->idle;
        coalesced_woken(ring);
    }
}

static void *keep(void *unused)
{
    (void)unused;
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul); /* of this thread; late is late enough */
    const struct timespec period = { .tv_nsec = COALESCED_TICK_NS };
    struct pollfd notified = { .fd = poller.epoll_fd, .events = POLLIN };
    pthread_mutex_lock(&poller.rings);
    while (!poller.ending) {
        const struct timespec *wait = poller.awake ? &period : NULL;
        pthread_mutex_unlock(&poller.rings);
        ppoll(&notified, 1, wait, NULL);
        pthread_mutex_lock(&poller.rings);
        wake_notified();
        for (struct coalesced *ring = poller.first; ring; ring = ring->next)
            if (!ring->idle && coalesced_tick(ring))
                poller.awake--;
    }
    pthread_mutex_unlock(&poller.rings);
    return NULL;
}

static int watch(int fd, struct coalesced *ring)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = ring };
    return epoll_ctl(poller.epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void close_descriptors(void)
{
    if (poller.epoll_fd >= 0)
        close(poller.epoll_fd);
    if (poller.end_fd >= 0)
        close(poller.end_fd);
}

static int start(void)
{
    poller.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    poller.end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    poller.ending = false;
    if (poller.epoll_fd >= 0 && poller.end_fd >= 0 && watch(poller.end_fd, NULL) == 0 &&
        (errno = pthread_create(&poller.thread, NULL, keep, NULL)) == 0)
        return 0;
    int error = errno;
    close_descriptors();
    errno = error;
    return -1;
}

static void end(void)
{
    pthread_mutex_lock(&poller.rings);
    poller.ending = true;
    pthread_mutex_unlock(&poller.rings);
    eventfd_write(poller.end_fd, 1);
    pthread_join(poller.thread, NULL);
    close_descriptors();
}

/* -- its rings ------------------------------------------------------------------------------------- */

int ring_poller_add(struct coalesced *coalesced)
{
    pthread_mutex_lock(&poller.life);
    int result = poller.first ? 0 : start();
    if (result == 0) {
        pthread_mutex_lock(&poller.rings);
        result = watch(coalesced->vcpu->control->idle_fd, coalesced);
        if (result == 0) {
            coalesced->next = poller.first;
            poller.first = coalesced;
            poller.awake++;
        }
        pthread_mutex_unlock(&poller.rings);
        eventfd_write(coalesced->vcpu->control->idle_fd, 1); /* it may be asleep for long */
        if (result < 0 && !poller.first)
            end();
    }
    pthread_mutex_unlock(&poller.life);
    return result;
}

void ring_poller_remove(struct coalesced *coalesced)
{
    bool removed = false;
    pthread_mutex_lock(&poller.life);
    pthread_mutex_lock(&poller.rings);
    for (struct coalesced **at = &poller.first; *at; at = &(*at)->next) {
        if (*at != coalesced)
            continue;
        *at = coalesced->next;
        poller.awake -= !coalesced->idle;
        epoll_ctl(poller.epoll_fd, EPOLL_CTL_DEL, coalesced->vcpu->control->idle_fd, NULL);
        coalesced_woken(coalesced);
        removed = true;
        break;
    }
    bool last = removed && !poller.first;
    pthread_mutex_unlock(&poller.rings);
    if (last)
        end();
    pthread_mutex_unlock(&poller.life);
}
