#define _GNU_SOURCE
#include "wait/spin_wait.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "wait/spin_budget.h"

enum {
    SCORE_MAX = 16,
    FRUITLESS_COST = 6,    /* so many looks that pay make up for one that does not */
    ACCOUNT_NS = 250000,   /* so much looking between two questions to the scheduler */
    FRUITLESS_NS = 250000, /* the first pause where nothing came, and the longest */
    FRUITLESS_MAX_NS = 4000000,
    PREEMPTED_NS = 4000000, /* the first pause where the core was taken away, and the longest */
    PREEMPTED_MAX_NS = 64000000,
    PREEMPTED_PART = 3, /* of the time that passed */
    CORES_EVERY = 1024, /* waits: then the cores are counted again */
};

struct spin_wait spin_wait_new(int mode, int64_t spin_ns)
{
    return (struct spin_wait){ .mode = mode, .spin_ns = spin_ns, .score = SCORE_MAX,
                              .fruitless_ns = FRUITLESS_NS, .preempted_ns = PREEMPTED_NS,
                              .schedstat_fd = -1 };
}

void spin_wait_end(struct spin_wait *spin_wait)
{
    if (spin_wait->schedstat_fd >= 0)
        close(spin_wait->schedstat_fd);
    spin_wait->schedstat_fd = -1;
}

/* That the calling thread may run on. */
static int count_cores(void)
{
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : INT_MAX;
}

bool spin_wait_enter(struct spin_wait *spin_wait, int64_t now_ns)
{
    if (spin_wait->mode != SPIN_WAIT_ADAPTIVE)
        return spin_wait->mode == SPIN_WAIT_SPIN;
    if (spin_wait->waits++ % CORES_EVERY == 0)
        spin_wait->cores = count_cores();
    spin_wait->counted = spin_wait->score > 0;
    if (spin_wait->counted)
        spin_budget_join();
    int cores = spin_wait->cores - !spin_wait->counted; /* itself it always counts */
    return now_ns >= spin_wait->resume_ns && spin_budget_allows(cores, now_ns);
}

void spin_wait_leave(struct spin_wait *spin_wait)
{
    if (spin_wait->counted)
        spin_budget_leave();
    spin_wait->counted = false;
}

static void pause_looking(struct spin_wait *spin_wait, int64_t now_ns, int64_t *pause_ns,
                          int64_t longest_ns)
{
    spin_wait->score = 0;
    spin_wait->resume_ns = now_ns + *pause_ns;
    *pause_ns = *pause_ns * 2 < longest_ns ? *pause_ns * 2 : longest_ns;
}

/* For how long the calling thread was ready to run, but did not, in all; -1: nobody counts it. */
static int64_t waited_for_a_core_ns(struct spin_wait *spin_wait)
{
    char text[64];
    long long ran_ns, waited_ns;
    if (spin_wait->schedstat_fd < 0)
        spin_wait->schedstat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    ssize_t length = pread(spin_wait->schedstat_fd, text, sizeof text - 1, 0);
    if (length <= 0)
        return -1;
    text[length] = 0;
    return sscanf(text, "%lld %lld", &ran_ns, &waited_ns) == 2 ? waited_ns : -1;
}

/* Asks, now and then, whether the looking thread had to wait for its core a good part of the time. */
static bool was_preempted(struct spin_wait *spin_wait, int64_t spent_ns, int64_t now_ns)
{
    spin_wait->spun_ns += spent_ns;
    if (spin_wait->spun_ns < ACCOUNT_NS)
        return false;
    int64_t waited_ns = waited_for_a_core_ns(spin_wait);
    bool first = spin_wait->asked_ns == 0 || waited_ns < 0;
    bool preempted = !first && waited_ns - spin_wait->waited_ns >
                                   (now_ns - spin_wait->asked_ns) / PREEMPTED_PART;
    spin_wait->spun_ns = 0;
    spin_wait->asked_ns = now_ns;
    spin_wait->waited_ns = waited_ns;
    if (!preempted && spin_wait->preempted_ns > PREEMPTED_NS)
        spin_wait->preempted_ns /= 2;
    return preempted;
}

void spin_wait_learn(struct spin_wait *spin_wait, bool paid, int64_t start_ns, int64_t now_ns)
{
    if (spin_wait->mode != SPIN_WAIT_ADAPTIVE)
        return;
    if (paid)
        spin_budget_gain();
    else
        spin_budget_pay(now_ns - start_ns);
    if (was_preempted(spin_wait, now_ns - start_ns, now_ns)) {
        pause_looking(spin_wait, now_ns, &spin_wait->preempted_ns, PREEMPTED_MAX_NS);
    } else if (!paid) {
        spin_wait->score -= FRUITLESS_COST;
        if (spin_wait->score <= 0)
            pause_looking(spin_wait, now_ns, &spin_wait->fruitless_ns, FRUITLESS_MAX_NS);
    } else if (spin_wait->score < SCORE_MAX) {
        spin_wait->score++;
    } else {
        spin_wait->fruitless_ns = FRUITLESS_NS;
    }
}
