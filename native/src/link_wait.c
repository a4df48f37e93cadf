#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

#include "link_inner.h"

/* Asks a silent server for a sign of life, and gives it up when it shows none. */
void look_after(struct link *link)
{
    int64_t now = monotonic_ns();
    int64_t heard = atomic_load(&link->heard_ns), asked = atomic_load(&link->asked_ns);
    int64_t silent = now - (heard > asked ? heard : asked);
    if (asked > heard && now - asked >= (int64_t)(link->deadline_ns - link->heartbeat_ns)) {
        end_link(link, LINK_TIMED_OUT, ETIMEDOUT, "the server was silent for %.1f s",
                 (double)(now - heard) / 1e9);
    } else if (asked <= heard && silent >= (int64_t)link->heartbeat_ns) {
        atomic_store(&link->asked_ns, now);
        struct message ping = { .type = MESSAGE_PING, .token = 0 };
        say(link, &ping);
    }
}

int heartbeat_ms(const struct link *link)
{
    uint64_t period = link->heartbeat_ns;
    if (link->deadline_ns - link->heartbeat_ns < period)
        period = link->deadline_ns - link->heartbeat_ns;
    return (int)(period / 1000000) + 1;
}

enum { PROBE_EVERY = 32, LOOK_AFTER_EVERY = 1 << 16 };

static bool should_spin(struct link *link)
{
    if (link->wait_mode != LINK_ADAPTIVE)
        return link->wait_mode == LINK_SPIN;
    return link->spin_score > 0 || ++link->waits % PROBE_EVERY == 0;
}

static void learn(struct link *link, bool slept)
{
    if (slept) {
        link->spin_score /= 2;
        link->stats.slept++;
    } else {
        link->spin_score += link->spin_score < LINK_SPIN_SCORE;
        link->stats.spun++;
    }
}

static void sleep_on(struct link *link)
{
    short events = atomic_load(&link->out_waiting) ? POLLIN | POLLOUT : POLLIN;
    struct pollfd fds[] = {
        { .fd = link->fd, .events = events },
        { .fd = link->control->stop_fd, .events = POLLIN },
    };
    if (poll(fds, 2, heartbeat_ms(link)) == 0)
        look_after(link);
}

static int wait_locked(struct link *link, bool (*done)(struct link *))
{
    bool spin = should_spin(link), slept = false;
    int64_t until = spin && link->wait_mode == LINK_ADAPTIVE
                        ? monotonic_ns() + (int64_t)link->spin_ns : INT64_MAX;
    uint32_t turns = 0;
    for (;;) {
        bool got = receive(link);
        if (done(link)) {
            learn(link, slept);
            return 0;
        }
        if (!is_open(link))
            return LINK_LOST;
        if (control_pending(link->control) & (CONTROL_STOP | CONTROL_LINK))
            return LINK_STOPPED;
        if (got)
            continue;
        if (atomic_load_explicit(&link->out_waiting, memory_order_relaxed)) {
            pthread_mutex_lock(&link->tx_lock);
            tx_push(link);
            pthread_mutex_unlock(&link->tx_lock);
        }
        if (++turns % LOOK_AFTER_EVERY == 0)
            look_after(link);
        if (spin && monotonic_ns() < until)
            continue;
        spin = false;
        slept = true;
        sleep_on(link);
    }
}

int wait_for(struct link *link, bool (*done)(struct link *))
{
    arm(link, 0);
    pthread_mutex_lock(&link->rx_lock);
    int result = wait_locked(link, done);
    pthread_mutex_unlock(&link->rx_lock);
    arm(link, atomic_load(&link->out_waiting) ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return result;
}
