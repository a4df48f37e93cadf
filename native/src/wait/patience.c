#define _GNU_SOURCE
#include "wait/patience.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "wait/crowd.h"

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

struct patience patience_new(int mode, int64_t spin_ns)
{
    return (struct patience){ .mode = mode, .spin_ns = spin_ns, .score = SCORE_MAX,
                              .fruitless_ns = FRUITLESS_NS, .preempted_ns = PREEMPTED_NS,
                              .schedstat_fd = -1 };
}

void patience_end(struct patience *patience)
{
    if (patience->schedstat_fd >= 0)
        close(patience->schedstat_fd);
    patience->schedstat_fd = -1;
}

/* That the calling thread may run on. */
static int count_cores(void)
{
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : INT_MAX;
}

bool patience_enter(struct patience *patience, int64_t now_ns)
{
    if (patience->mode != PATIENCE_ADAPTIVE)
        return patience->mode == PATIENCE_SPIN;
    if (patience->waits++ % CORES_EVERY == 0)
        patience->cores = count_cores();
    patience->counted = patience->score > 0;
    if (patience->counted)
        crowd_join();
    int cores = patience->cores - !patience->counted; /* itself it always counts */
    return now_ns >= patience->resume_ns && crowd_lets_look(cores, now_ns);
}

void patience_leave(struct patience *patience)
{
    if (patience->counted)
        crowd_leave();
    patience->counted = false;
}

static void pause_looking(struct patience *patience, int64_t now_ns, int64_t *pause_ns,
                          int64_t longest_ns)
{
    patience->score = 0;
    patience->resume_ns = now_ns + *pause_ns;
    *pause_ns = *pause_ns * 2 < longest_ns ? *pause_ns * 2 : longest_ns;
}

/* For how long the calling thread was ready to run, but did not, in all; -1: nobody counts it. */
static int64_t waited_for_a_core_ns(struct patience *patience)
{
    char text[64];
    long long ran_ns, waited_ns;
    if (patience->schedstat_fd < 0)
        patience->schedstat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    ssize_t length = pread(patience->schedstat_fd, text, sizeof text - 1, 0);
    if (length <= 0)
        return -1;
    text[length] = 0;
    return sscanf(text, "%lld %lld", &ran_ns, &waited_ns) == 2 ? waited_ns : -1;
}

/* Asks, now and then, whether the looking thread had to wait for its core a good part of the time. */
static bool was_preempted(struct patience *patience, int64_t spent_ns, int64_t now_ns)
{
    patience->spun_ns += spent_ns;
    if (patience->spun_ns < ACCOUNT_NS)
        return false;
    int64_t waited_ns = waited_for_a_core_ns(patience);
    bool first = patience->asked_ns == 0 || waited_ns < 0;
    bool preempted = !first && waited_ns - patience->waited_ns >
                                   (now_ns - patience->asked_ns) / PREEMPTED_PART;
    patience->spun_ns = 0;
    patience->asked_ns = now_ns;
    patience->waited_ns = waited_ns;
    if (!preempted && patience->preempted_ns > PREEMPTED_NS)
        patience->preempted_ns /= 2;
    return preempted;
}

void patience_learn(struct patience *patience, bool paid, int64_t start_ns, int64_t now_ns)
{
    if (patience->mode != PATIENCE_ADAPTIVE)
        return;
    if (paid)
        crowd_gain();
    else
        crowd_pay(now_ns - start_ns);
    if (was_preempted(patience, now_ns - start_ns, now_ns)) {
        pause_looking(patience, now_ns, &patience->preempted_ns, PREEMPTED_MAX_NS);
    } else if (!paid) {
        patience->score -= FRUITLESS_COST;
        if (patience->score <= 0)
            pause_looking(patience, now_ns, &patience->fruitless_ns, FRUITLESS_MAX_NS);
    } else if (patience->score < SCORE_MAX) {
        patience->score++;
    } else {
        patience->fruitless_ns = FRUITLESS_NS;
    }
}
