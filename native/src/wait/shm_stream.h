/*
 * One end of a stream whose bytes go through memory that both processes have mapped.
 *
 * The socket that the stream began on stays: its end is the stream's end, and a byte on it is a
 * *doorbell*, for an end that sleeps in poll or epoll. An end says how it is to be woken when it has
 * something to take, or room again: not at all (it looks by itself), by a doorbell, or by a futex. It
 * says so before it looks a last time, so that nothing is put without waking it.
 *
 * The memory is the server's (a memfd whose size is sealed). Whatever the other end writes into it,
 * an end only ever copies bytes out of it, at most as many as there can be.
 *
 * One thread at a time gives, one takes; how an end waits is said by the one that takes.
 */
#ifndef KVMSHIM_SHM_STREAM_H
#define KVMSHIM_SHM_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    SHM_BYTES = 256 * 1024, /* that are under way in one direction; a power of two */
    SHM_CACHE_LINE = 64,
};

enum shm_wake { SHM_LOOKS, SHM_DOORBELL, SHM_FUTEX };

struct shm_ring {
    _Alignas(SHM_CACHE_LINE) _Atomic uint64_t put;
    _Alignas(SHM_CACHE_LINE) _Atomic uint64_t taken;
    _Atomic uint32_t full; /* whoever gives is to be woken when there is room */
    _Alignas(SHM_CACHE_LINE) uint8_t bytes[SHM_BYTES];
};

struct shm_page {
    struct {
        _Alignas(SHM_CACHE_LINE) _Atomic uint32_t wake;
    } ends[2];
    struct shm_ring rings[2]; /* what the end of this number gives */
};

struct shm_stream {
    int fd;                 /* the socket, which is the owner's */
    struct shm_page *page; /* NULL: all bytes go through the socket */
    int end;                /* 0: the server's, 1: the client's */
    uint64_t put, taken;    /* by this end */
    uint64_t room_until;    /* this end may put up to here, as it was last seen */
    _Atomic bool is_short;  /* there was no room for all that was to be given last */
    bool ended;             /* the other end has gone, as was heard */
};

/* The server's end, and a descriptor for the client, to be closed by the caller; -1 and errno. */
int shm_stream_make(struct shm_stream *shm, int fd);
/* The client's end; -1 and errno. EPROTO: this is no memory of a server's. */
int shm_stream_open(struct shm_stream *shm, int fd, int memory_fd);
/* Neither end has to do this before the other. */
void shm_stream_close(struct shm_stream *shm);

/* Gives what there is room for: how much that was, -1 (EPROTO) if the other end breaks the rules. */
ssize_t shm_stream_give(struct shm_stream *shm, const uint8_t *bytes, size_t length);
/* Takes what is there: how much that was, -1 (EPROTO) if the other end breaks the rules. */
ssize_t shm_stream_take(struct shm_stream *shm, uint8_t *bytes, size_t room);
/* Bells that were rung: as recv with MSG_DONTWAIT, so 0 when the other end has gone. */
ssize_t shm_stream_hear(struct shm_stream *shm);
/*
 * As recv: takes what is there, if need be sleeps for nap_us first (0: does not); 0 when the other end
 * has gone, as far as that was heard; a sleep in vain hears. EAGAIN: nothing is there.
 */
ssize_t shm_stream_receive(struct shm_stream *shm, uint8_t *bytes, size_t room, long nap_us);

/* This end looks by itself from now on. */
void shm_stream_look(struct shm_stream *shm);
/* A doorbell is to be rung from now on; what came before has to be looked for once more. */
void shm_stream_await_doorbell(struct shm_stream *shm);
/* The same, having heard whether the other end is there. */
void shm_stream_ask(struct shm_stream *shm);
/* Asks for a doorbell, unless a thread already sleeps on the futex: that one wakes by itself. */
void shm_stream_await_doorbell_if_awake(struct shm_stream *shm);
bool shm_stream_looks(const struct shm_stream *shm);
/* Sleeps until there is something to take, room if there was none, a signal, or nap_us are over. */
void shm_stream_sleep(struct shm_stream *shm, long nap_us);
/* Whether there was no room for all that was to be given last, and has been made some since. */
bool shm_stream_has_room_again(const struct shm_stream *shm);

#endif
