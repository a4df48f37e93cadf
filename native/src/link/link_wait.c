#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "link/link_inner.h"

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

enum { LOOK_AFTER_EVERY = 1 << 16 };

/* Bytes are left over that the socket did not take: for as long as that is so, wait for both. */
static void wait_for_room(struct link *link)
{
    struct pollfd fds[] = {
        { .fd = link->fd, .events = POLLIN | POLLOUT },
        { .fd = link->control->stop_fd, .events = POLLIN },
    };
    poll(fds, 2, heartbeat_ms(link));
}

/* One look at the stream; true if something came. */
static bool look(struct link *link, bool spin)
{
    bool waiting = atomic_load_explicit(&link->out_waiting, memory_order_relaxed);
    bool by_poll = waiting && !link->shm.page;
    if (by_poll)
        wait_for_room(link);
    if (waiting)
        push_rest(link);
    bool sleep = !spin && !by_poll;
    bool got = receive(link, sleep ? RX_SLEEP : RX_LOOK);
    if (!got && sleep)
        look_after(link);
    return got;
}

/* Whether to look on, a look having brought nothing. */
static bool look_on(struct link *link, int64_t start)
{
    int64_t now = monotonic_ns();
    if (link->spin_wait.mode == SPIN_WAIT_SPIN || now - start < link->spin_wait.spin_ns)
        return true;
    spin_wait_learn(&link->spin_wait, false, start, now);
    return false;
}

static int wait_locked(struct link *link, bool (*done)(struct link *), int64_t start)
{
    bool spin = spin_wait_enter(&link->spin_wait, start);
    for (uint32_t turns = 1; !done(link); turns++) {
        bool got = look(link, spin);
        if (done(link))
            break;
        if (!is_open(link))
            return LINK_LOST;
        if (control_pending(link->control) & (CONTROL_STOP | CONTROL_LINK))
            return LINK_STOPPED;
        if (turns % LOOK_AFTER_EVERY == 0) {
            got |= receive(link, RX_ASK);
            look_after(link);
        }
        spin = spin && (got || look_on(link, start));
    }
    if (spin)
        spin_wait_learn(&link->spin_wait, true, start, monotonic_ns());
    link->stats.spun += spin;
    link->stats.slept += !spin;
    return 0;
}

/* -- polled links ---------------------------------------------------------------------------- */

static void set_tick(struct link *link, long period_ns)
{
    struct itimerspec when = { { 0, period_ns }, { 0, period_ns } };
    timerfd_settime(link->tick_fd, 0, &when, NULL);
}

static uint32_t events_wanted(struct link *link)
{
    return atomic_load(&link->out_waiting) ? EPOLLIN | EPOLLOUT : EPOLLIN;
}

static void heat_up(struct link *link, int64_t began_ns)
{
    bool quick = began_ns - link->began_ns < LINK_HOT_NS;
    link->began_ns = began_ns;
    link->quick_waits = quick ? link->quick_waits + 1 : 0;
    if (link->polled || link->quick_waits < LINK_POLLED_WAITS)
        return;
    link->polled = true;
    link->waits_seen = link->waits_ended;
    set_tick(link, LINK_TICK_NS);
}

/* The event thread is to be woken again; what came before is looked for once more. */
static void watch_again(struct link *link, uint32_t events)
{
    arm(link, events);
    if (!link->shm.page)
        return;
    while (receive(link, RX_LOOK))
        ;
    push_rest(link);
}

void cool_down(struct link *link)
{
    uint64_t expirations;
    if (read(link->tick_fd, &expirations, sizeof expirations) < 0)
        return;
    if (pthread_mutex_trylock(&link->rx_lock) != 0)
        return; /* a vCPU waits */
    if (link->waits_ended - link->waits_seen < LINK_TICK_NS / LINK_HOT_NS / 2) {
        link->polled = false;
        link->quick_waits = 0;
        set_tick(link, 0);
        watch_again(link, events_wanted(link));
    }
    link->waits_seen = link->waits_ended;
    pthread_mutex_unlock(&link->rx_lock);
}

/* Whoever waits reads by itself: the event thread is not to be woken by what comes. */
static void take_socket(struct link *link, int64_t start)
{
    bool was_polled = link->polled;
    heat_up(link, start);
    if (!was_polled)
        arm(link, 0);
}

static void give_socket_back(struct link *link)
{
    bool watched = atomic_exchange(&link->watched_for_room, false);
    bool waiting = atomic_load(&link->out_waiting);
    if (!link->polled || (waiting && link->shm.page))
        watch_again(link, events_wanted(link));
    else if (watched)
        arm(link, waiting ? events_wanted(link) : 0);
}

int wait_for(struct link *link, bool (*done)(struct link *))
{
    int64_t start = monotonic_ns();
    pthread_mutex_lock(&link->rx_lock);
    take_socket(link, start);
    int result = wait_locked(link, done, start);
    spin_wait_leave(&link->spin_wait);
    give_socket_back(link);
    link->waits_ended++;
    pthread_mutex_unlock(&link->rx_lock);
    return result;
}

/* -- until all is done -------------------------------------------------------------------- */

static bool has_ponged(struct link *link)
{
    return atomic_load(&link->ponged) >= link->pinged;
}

int link_barrier(struct link *link)
{
    pthread_mutex_lock(&link->tx_lock);
    struct message ping = { .type = MESSAGE_PING, .token = ++link->pinged };
    size_t at = tx_begin(link);
    tx_batch(link);
    tx_message(link, &ping);
    tx_end(link, at);
    tx_push(link);
    pthread_mutex_unlock(&link->tx_lock);
    atomic_fetch_add(&link->settling, 1);
    int result = wait_for(link, has_ponged);
    atomic_fetch_sub(&link->settling, 1);
    return result;
}

int link_fence(struct link *link)
{
    return link_is_clear(link) ? 0 : link_barrier(link);
}
