#define _GNU_SOURCE /* ppoll */
#include "vcpu/keeper.h"

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
    int epoll_fd, end_fd; /* each ring's doze_fd is in the set, and end_fd */
    pthread_t thread;
    bool ending;
} keeper = { .life = PTHREAD_MUTEX_INITIALIZER, .rings = PTHREAD_MUTEX_INITIALIZER };

/* -- the thread ------------------------------------------------------------------------------------ */

static void wake_roused(void)
{
    struct epoll_event events[WOKEN_AT_ONCE];
    int count = epoll_wait(keeper.epoll_fd, events, WOKEN_AT_ONCE, 0);
    for (int i = 0; i < count; i++) {
        struct coalesced *ring = events[i].data.ptr;
        if (!ring)
            continue; /* the end */
        keeper.awake += ring->dozes;
        coalesced_woken(ring);
    }
}

static void *keep(void *unused)
{
    (void)unused;
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul); /* of this thread; late is late enough */
    const struct timespec period = { .tv_nsec = COALESCED_TICK_NS };
    struct pollfd roused = { .fd = keeper.epoll_fd, .events = POLLIN };
    pthread_mutex_lock(&keeper.rings);
    while (!keeper.ending) {
        const struct timespec *wait = keeper.awake ? &period : NULL;
        pthread_mutex_unlock(&keeper.rings);
        ppoll(&roused, 1, wait, NULL);
        pthread_mutex_lock(&keeper.rings);
        wake_roused();
        for (struct coalesced *ring = keeper.first; ring; ring = ring->next)
            if (!ring->dozes && coalesced_tick(ring))
                keeper.awake--;
    }
    pthread_mutex_unlock(&keeper.rings);
    return NULL;
}

static int watch(int fd, struct coalesced *ring)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = ring };
    return epoll_ctl(keeper.epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void close_descriptors(void)
{
    if (keeper.epoll_fd >= 0)
        close(keeper.epoll_fd);
    if (keeper.end_fd >= 0)
        close(keeper.end_fd);
}

static int start(void)
{
    keeper.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    keeper.end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    keeper.ending = false;
    if (keeper.epoll_fd >= 0 && keeper.end_fd >= 0 && watch(keeper.end_fd, NULL) == 0 &&
        (errno = pthread_create(&keeper.thread, NULL, keep, NULL)) == 0)
        return 0;
    int error = errno;
    close_descriptors();
    errno = error;
    return -1;
}

static void end(void)
{
    pthread_mutex_lock(&keeper.rings);
    keeper.ending = true;
    pthread_mutex_unlock(&keeper.rings);
    eventfd_write(keeper.end_fd, 1);
    pthread_join(keeper.thread, NULL);
    close_descriptors();
}

/* -- its rings ------------------------------------------------------------------------------------- */

int keeper_add(struct coalesced *coalesced)
{
    pthread_mutex_lock(&keeper.life);
    int result = keeper.first ? 0 : start();
    if (result == 0) {
        pthread_mutex_lock(&keeper.rings);
        result = watch(coalesced->vcpu->control->doze_fd, coalesced);
        if (result == 0) {
            coalesced->next = keeper.first;
            keeper.first = coalesced;
            keeper.awake++;
        }
        pthread_mutex_unlock(&keeper.rings);
        eventfd_write(coalesced->vcpu->control->doze_fd, 1); /* it may be asleep for long */
        if (result < 0 && !keeper.first)
            end();
    }
    pthread_mutex_unlock(&keeper.life);
    return result;
}

void keeper_remove(struct coalesced *coalesced)
{
    bool removed = false;
    pthread_mutex_lock(&keeper.life);
    pthread_mutex_lock(&keeper.rings);
    for (struct coalesced **at = &keeper.first; *at; at = &(*at)->next) {
        if (*at != coalesced)
            continue;
        *at = coalesced->next;
        keeper.awake -= !coalesced->dozes;
        epoll_ctl(keeper.epoll_fd, EPOLL_CTL_DEL, coalesced->vcpu->control->doze_fd, NULL);
        coalesced_woken(coalesced);
        removed = true;
        break;
    }
    bool last = removed && !keeper.first;
    pthread_mutex_unlock(&keeper.rings);
    if (last)
        end();
    pthread_mutex_unlock(&keeper.life);
}
