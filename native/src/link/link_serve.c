/* The event thread: reads the stream while no vCPU does, and sends what waits too long. */
#include <sys/epoll.h>
#include <unistd.h>

#include "link/link_inner.h"

/*
 * A doorbell, or the end. A doorbell is rung once: while a vCPU reads, it may have looked for the last time
 * already, so this waits for it.
 */
static void serve_bell(struct link *link)
{
    link->stats.woken++;
    pthread_mutex_lock(&link->rx_lock);
    bool polled = link->polled && !atomic_load(&link->out_waiting); /* no doorbell is wanted then */
    enum how_to_receive how = polled && shm_stream_hear(&link->shm) != 0 ? RX_LOOK : RX_ASK;
    while (receive(link, how))
        ;
    pthread_mutex_unlock(&link->rx_lock);
    push_rest(link);
}

static void serve_socket(struct link *link)
{
    if (atomic_load(&link->out_waiting)) {
        pthread_mutex_lock(&link->tx_lock);
        tx_push(link);
        if (!atomic_load(&link->out_waiting))
            arm(link, EPOLLIN);
        pthread_mutex_unlock(&link->tx_lock);
    }
    link->stats.woken++;
    if (pthread_mutex_trylock(&link->rx_lock) == 0) { /* else a vCPU reads */
        while (receive(link, RX_ASK))
            ;
        pthread_mutex_unlock(&link->rx_lock);
    }
}

static void serve_timer(struct link *link)
{
    uint64_t expirations;
    if (read(link->timer_fd, &expirations, sizeof expirations) < 0)
        return;
    pthread_mutex_lock(&link->tx_lock);
    link->timer_set = false;
    if (link->flushes == link->flushes_seen)
        tx_flush(link);
    else if (link->batch_writes) /* a vCPU that writes on sends its batches itself */
        start_flush_timer(link, LINK_LATE_FLUSHES * link->flush_after_ns);
    link->flushes_seen = link->flushes;
    pthread_mutex_unlock(&link->tx_lock);
}

void link_serve(struct link *link)
{
    while (!atomic_load(&link->closing) && is_open(link)) {
        struct epoll_event events[4];
        bool held = atomic_exchange(&link->held_back, false);
        int n = epoll_wait(link->epoll_fd, events, 4, held ? LINK_FULL_NAP_MS : heartbeat_ms(link));
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == link->fd)
                link->shm.page ? serve_bell(link) : serve_socket(link);
            else if (events[i].data.fd == link->timer_fd)
                serve_timer(link);
            else if (events[i].data.fd == link->tick_fd)
                cool_down(link);
        }
        if (held)
            link->shm.page ? serve_bell(link) : serve_socket(link);
        look_after(link);
    }
}

void link_close(struct link *link)
{
    pthread_mutex_lock(&link->tx_lock);
    if (is_open(link))
        tx_flush(link);
    pthread_mutex_unlock(&link->tx_lock);
    atomic_store(&link->closing, true);
    wake(link->wake_fd);
}
