#define _GNU_SOURCE
#include "patience.h"

#include <sys/resource.h>

enum {
    SCORE_MAX = 16,
    ACCOUNT_NS = 1000000,  /* so much looking between two questions to the scheduler */
    FRUITLESS_NS = 250000, /* the first pause where nothing came, and the longest */
    FRUITLESS_MAX_NS = 4000000,
    PREEMPTED_NS = 4000000, /* the first pause where the core was taken away, and the longest */
    PREEMPTED_MAX_NS = 64000000,
};

struct patience patience_new(int mode, int64_t spin_ns)
{
    return (struct patience){ .mode = mode, .spin_ns = spin_ns, .score = SCORE_MAX,
                              .fruitless_ns = FRUITLESS_NS, .preempted_ns = PREEMPTED_NS };
}

bool patience_wants_to_look(const struct patience *patience, int64_t now_ns)
{
    if (patience->mode != PATIENCE_ADAPTIVE)
        return patience->mode == PATIENCE_SPIN;
    return now_ns >= patience->resume_ns;
}

static void pause_looking(struct patience *patience, int64_t now_ns, int64_t *pause_ns,
                          int64_t longest_ns)
{
    patience->score = 0;
    patience->resume_ns = now_ns + *pause_ns;
    *pause_ns = *pause_ns * 2 < longest_ns ? *pause_ns * 2 : longest_ns;
}

/* Asks the scheduler, now and then, whether it took the core away from the looking thread. */
static bool was_preempted(struct patience *patience, int64_t spent_ns)
{
    patience->spun_ns += spent_ns;
    if (patience->spun_ns < ACCOUNT_NS)
        return false;
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    bool preempted = (uint64_t)usage.ru_nivcsw > patience->preemptions;
    patience->spun_ns = 0;
    patience->preemptions = (uint64_t)usage.ru_nivcsw;
    if (!preempted && patience->preempted_ns > PREEMPTED_NS)
        patience->preempted_ns /= 2;
    return preempted;
}

void patience_learn(struct patience *patience, bool paid, int64_t start_ns, int64_t now_ns)
{
    if (patience->mode != PATIENCE_ADAPTIVE)
        return;
    if (was_preempted(patience, now_ns - start_ns)) {
        pause_looking(patience, now_ns, &patience->preempted_ns, PREEMPTED_MAX_NS);
    } else if (!paid) {
        patience->score /= 2;
        if (patience->score == 0)
            pause_looking(patience, now_ns, &patience->fruitless_ns, FRUITLESS_MAX_NS);
    } else if (patience->score < SCORE_MAX) {
        patience->score++;
    } else {
        patience->fruitless_ns = FRUITLESS_NS;
    }
}
