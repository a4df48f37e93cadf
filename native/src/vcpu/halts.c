#include "vcpu/halts.h"

#include <time.h>

#include "vm/control.h"
#include "link/link.h"

enum {
    HALTS_SEEN = 4, /* so many are no accident */
    FIRST_WAITS = 64,
    LAST_WAITS = 4096,
    MISSES = 2,
};

/* A link that a move has ended brings no more. */
static uint64_t interrupts_from(const struct routes *routes, uint16_t link)
{
    const struct link *from = routes->links[link];
    return from ? __atomic_load_n(&from->stats.interrupts, __ATOMIC_RELAXED) : 0;
}

static bool interrupted_since(const struct halts *halts, const struct routes *routes)
{
    return interrupts_from(routes, halts->link) != halts->interrupts;
}

static int64_t used_by_this_thread_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return used.tv_sec * 1000000000LL + used.tv_nsec;
}

/* The guest is back: did it halt after the watched write, until the server's interrupt? */
static bool halted_since(const struct halts *halts, const struct routes *routes)
{
    if (!interrupted_since(halts, routes))
        return false;
    int64_t passed_ns = monotonic_ns() - halts->wrote_ns;
    int64_t ran_ns = used_by_this_thread_ns() - halts->used_ns;
    return ran_ns * 2 < passed_ns;
}

/* The write that waited: has its interrupt come by now? */
static void judge_wait(struct halts *halts, const struct routes *routes)
{
    halts->waited = false;
    halts->missed = interrupted_since(halts, routes) ? 0 : halts->missed + 1;
    if (halts->missed >= MISSES) {
        halts->waits = halts->missed = 0;
        halts->next = FIRST_WAITS;
    }
}

static void judge_post(struct halts *halts, const struct routes *routes)
{
    halts->watched = false;
    if (!halted_since(halts, routes)) {
        halts->seen = 0;
        halts->next = FIRST_WAITS;
    } else if (++halts->seen >= HALTS_SEEN) {
        halts->seen = 0;
        halts->waits = halts->next ? halts->next : FIRST_WAITS;
        halts->next = halts->waits < LAST_WAITS ? halts->waits * 2 : LAST_WAITS;
    }
}

void halts_exit(struct halts *halts, const struct routes *routes)
{
    halts->serving = true;
    if (halts->watched)
        judge_post(halts, routes);
    else if (halts->waited)
        judge_wait(halts, routes);
}

void halts_served(struct halts *halts)
{
    halts->serving = false;
}

bool halts_wait(struct halts *halts, const struct routes *routes, uint16_t link)
{
    if (!halts->serving)
        return false;
    uint64_t interrupts = interrupts_from(routes, link);
    bool follows = link == halts->link && interrupts != halts->interrupts;
    halts->link = link;
    halts->interrupts = interrupts;
    halts->watched = halts->waited = false;
    if (!follows)
        return false;
    if (halts->waits) {
        halts->waits--;
        halts->waited = true;
        return true;
    }
    halts->watched = true;
    halts->wrote_ns = monotonic_ns();
    halts->used_ns = used_by_this_thread_ns();
    return false;
}
