/*
 * All threads of this process that wait adaptively (spin_wait.h), and what they may spend together.
 *
 * One that looks alone loses little where nothing comes. Hundreds that do, each now and then, take
 * the cores from those that they wait for. So no more of them look than leave a core free, and the
 * time of looks that bring nothing comes out of one credit: it grows by a small part of the time that
 * passes, and with every look that pays by what a wake-up would have taken.
 */
#ifndef KVMSHIM_SPIN_BUDGET_H
#define KVMSHIM_SPIN_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

/* One more waits for what is to come soon, and one less. */
void spin_budget_join(void);
void spin_budget_leave(void);
/* Whether one of those that wait may look, having so many cores; now_ns: CLOCK_MONOTONIC. */
bool spin_budget_allows(int cores, int64_t now_ns);
/* A look took so long and brought nothing; a look brought something. */
void spin_budget_pay(int64_t spent_ns);
void spin_budget_gain(void);

#endif
