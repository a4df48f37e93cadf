/*
 * The server's data loop: waits for many streams, receives, cuts frames, decodes what comes often,
 * and hands Python what is left to do: run a model. Its answer is encoded and sent here.
 *
 * serve_next() returns at each thing that Python must do, and goes on from there when it is called
 * again. Accesses have *handles*: the first time that a stream's client makes an access, Python is
 * asked for one (SERVE_UNKNOWN, serve_bind); from then on it gets the handle and the numbers only.
 *
 * Whatever is not an ordinary request or batch goes to Python as a frame of its own, to be taken by
 * devserver/session/session.py, which is the reference for all that is done here.
 */
#ifndef KVMSHIM_SERVE_H
#define KVMSHIM_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "codec.h"
#include "wait/shm_stream.h"
#include "wait/spin_wait.h"

enum {
    SERVE_HEADER = 4,                /* the length before a frame */
    SERVE_CHUNK = SHM_BYTES,        /* received at a time */
    SERVE_EVENTS = 64,               /* taken from epoll at a time */
    SERVE_NAP_US = 10000,            /* the longest sleep that notices one stream only */
    SERVE_MAX_ACCESSES = 2048,       /* that a stream can have handles for */
    SERVE_LONGER = 16,               /* turns at a time for the only client that there is */
    SERVE_SPARES = 64,               /* buffers that are kept: fresh memory costs page faults */
    SERVE_OUT_KEPT = 256 * 1024,     /* of the buffer for what a client is told, between turns */
    SERVE_HELD = 16 * 1024,          /* so much is sent at the end of a turn, or what was said */
    SERVE_HELD_TURNS = 8,            /* in so many of them */
    SERVE_HIGH_OUT = 1 << 20,        /* so much waits for a client: nothing is read from it */
    SERVE_MAX_OUT = 8 << 20,         /* so much: it is given up */
};

/* What serve_next() found; a number from 0 on is the handle of a request. */
enum serve_found {
    SERVE_BATCH = -1,   /* count accesses in runs: handles, values, times, run_handles, run_counts */
    SERVE_UNKNOWN = -2, /* access: has no handle yet */
    SERVE_BYTES = -3,   /* bytes, bytes_used: a frame that the session is to receive */
    SERVE_CLOSED = -4,  /* the stream was closed by its client, or failed with error_number */
    SERVE_FULL = -5,    /* more than SERVE_MAX_OUT waits for the stream's client */
    SERVE_TIMER = -6,   /* due_ns has come */
    SERVE_OTHER = -7,   /* other_fd, which is not a stream, is ready */
    SERVE_SIGNAL = -8,  /* a signal came */
    SERVE_RESUME = -9,  /* it is the turn of a stream at which Python has left something undone */
};

/* Kept together with a devserver.protocol.connection.Connection: the numbers of COUNTERS there. */
struct serve_counters {
    uint64_t sent, received, acknowledged;
    uint64_t posted;         /* writes posted so far */
    uint64_t confirmed;      /* of these, acknowledged by what was said */
    uint64_t window_start;   /* and by what was said in earlier turns */
    uint64_t unacknowledged; /* posted since the last ACK */
};

/* Kept together with a devserver.machine.vm_clock.VmClock. */
struct serve_clock {
    int64_t running, offset_ns, stopped_ns;
};

struct serve_access {
    uint64_t address;
    uint32_t device_id;
    uint8_t direction, space, size;
    int32_t handle;
};

/* What was received of a stream in its turn, and how far it has come with that. */
struct serve_turn {
    uint8_t *buffer;
    size_t at, frame_end, end; /* in the buffer */
    uint8_t pending;           /* MESSAGE_REQUEST or _BATCH while Python serves one */
    uint8_t pending_direction, pending_size;
    uint32_t pending_count;
};

struct serve_stream {
    int fd;
    uint32_t id;    /* Python's name for it */
    uint8_t direct; /* requests and batches are decoded here; else all goes to Python */
    uint8_t hypervisor;
    uint32_t server_id, vm_id, client_id;
    uint64_t window, ack_every;
    int64_t heard_ns; /* CLOCK_MONOTONIC at the last bytes received */
    struct serve_counters counters;
    struct serve_clock clock;
    uint32_t interest;
    struct shm_stream shm;
    uint8_t *in; /* the beginning of a frame */
    size_t in_used;
    struct serve_turn parked;  /* with a buffer: others had to have their turns first */
    bool unfinished;           /* Python goes on before anything else of the stream is served */
    bool busy;                 /* its last turn was too short for it */
    unsigned held_turns;       /* turns since it was sent something */
    bool queued;               /* in the loop's queue */
    struct serve_stream *next; /* there */
    uint8_t *out; /* what waits for the client to read, from out_at on */
    size_t out_at, out_used, out_size;
    struct serve_access *accesses; /* open addressing */
    size_t access_count, access_room;
};

/* What Python reads and writes for each request, as an array of 64-bit numbers. */
struct serve_exchange {
    uint64_t value, time_ns; /* of the request */
    uint64_t stream;         /* id of the stream that serve_next() returned for */
    uint64_t count, runs;    /* of the batch */
    uint64_t answer, status; /* of the request, from Python; status is 0 again afterwards */
    uint64_t ack;            /* from Python: an ACK is to follow the batch, however short it was */
    uint64_t pass;           /* from Python: this message goes to the session */
    uint64_t due_ns;         /* from Python: CLOCK_MONOTONIC at which to return SERVE_TIMER */
    uint64_t turn_end_ns;    /* when others are to be served, if there are any; Python keeps to it */
};

struct serve_loop {
    int epoll_fd;
    struct serve_exchange exchange;
    struct spin_wait spin_wait;
    struct serve_access access;
    int other_fd, error_number;
    const uint8_t *bytes;
    size_t bytes_used;
    int64_t now_ns;    /* of the last receive */
    bool timer_told;  /* that due_ns has come, and there was no look at the streams since */
    unsigned since_look;

    struct serve_stream *current; /* the stream whose bytes are being served */
    struct serve_turn turn;       /* its */
    unsigned served;              /* things done in it */
    int64_t turn_ns;              /* how long it may last where others wait */
    uint8_t *spares;              /* buffers that are free, each with the address of the next */
    unsigned spare_count;
    /* Streams that have more to do than fitted into their last turn, first come first served. They
     * are served one at a time, after those who have asked for little. */
    struct serve_stream *queue, *queue_end;
    bool queue_is_next;
    struct serve_stream *polled;     /* the only one that had something to say of late */
    unsigned streams;
    bool idle; /* nothing came for SERVE_NAP_US from a stream that was waited for alone */

    struct epoll_event events[SERVE_EVENTS];
    int event_at, event_count;

    uint8_t *out; /* what the current stream is told in this turn */
    size_t out_used, out_size, out_frame;

    uint32_t handles[CODEC_MAX_WRITES];
    uint32_t run_handles[CODEC_MAX_WRITES], run_counts[CODEC_MAX_WRITES];
    uint64_t values[CODEC_MAX_WRITES], times[CODEC_MAX_WRITES];
};

/* mode: how to wait (enum spin_wait_mode). turn_ns: of one stream, while others wait. NULL where there is no memory or no descriptor. */
struct serve_loop *serve_new(int mode, int64_t spin_ns, int64_t turn_ns);
void serve_free(struct serve_loop *loop);

/* Takes a connected socket into the loop; NULL and errno if it can't. Its owner closes it. */
struct serve_stream *serve_add(struct serve_loop *loop, int fd, uint32_t id);
/* Forgets a stream, and frees it. */
void serve_remove(struct serve_loop *loop, struct serve_stream *stream);
/* Has SERVE_OTHER returned while fd is readable, or not any more; -1 and errno if it can't. */
int serve_watch(struct serve_loop *loop, int fd, int on);

/*
 * Sends what was put to the stream whose turn it is, and with it memory that all further bytes of
 * both directions go through (shm_stream.h); -1 and errno if it can't. Only for a Unix socket.
 */
int serve_share(struct serve_loop *loop, struct serve_stream *stream);

/* Gives an access of the stream's client a handle; -1 if it has too many. */
int serve_bind(struct serve_stream *stream, const struct serve_access *access);
/* Takes all handles of a stream back: what its accesses reach has changed. */
void serve_unbind(struct serve_stream *stream);

/* Puts a message behind what a stream is told in this turn; -1 without memory. */
int serve_put_interrupt(struct serve_loop *loop, uint32_t line, uint8_t level, uint64_t number);
int serve_put(struct serve_loop *loop, const uint8_t *message, size_t length);
/* Sends what was put, to the stream whose turn it is; SERVE_FULL if too much waits for it, or 0. */
int serve_flush(struct serve_loop *loop, struct serve_stream *stream);
/* Sends frames to any stream, behind what was put if it is its turn; as serve_flush. */
int serve_send(struct serve_loop *loop, struct serve_stream *stream, const uint8_t *frames,
               size_t length);

/*
 * Python has not done all that serve_next() returned for: the stream's turn is over. SERVE_RESUME
 * tells when to go on with it.
 */
void serve_pause(struct serve_loop *loop);

/* Answers what it returned last, and goes on to what Python is to do next. */
int serve_next(struct serve_loop *loop);

#endif
