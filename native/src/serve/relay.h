/*
 * Hands bytes on between pairs of connected sockets, in both directions, in a thread of its own.
 *
 * A connection to a server that this one only knows of goes through here: what it says is not
 * looked at. When either end closes, what it said last is still handed on, and then both end.
 */
#ifndef KVMSHIM_RELAY_H
#define KVMSHIM_RELAY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "wait/spin_wait.h"

struct relay_pair;

struct relay {
    int epoll_fd, wake_fd;
    struct spin_wait spin_wait;
    pthread_mutex_t lock; /* of the list */
    struct relay_pair *pairs;
    unsigned count; /* of them */
    _Atomic bool closing;
};

/* mode: how to wait (enum spin_wait_mode). NULL and errno where it can't be made. */
struct relay *relay_new(int mode, int64_t spin_ns);
/* Hands on until relay_stop(); from any thread. */
void relay_run(struct relay *relay);
/* Two connected sockets, which are the relay's from now on, even if it fails: -1 and errno. */
int relay_add(struct relay *relay, int one, int other);
/* Pairs that there are now; from any thread. */
unsigned relay_count(struct relay *relay);
void relay_stop(struct relay *relay);
/* After relay_run() has returned: closes every pair. */
void relay_free(struct relay *relay);

#endif
