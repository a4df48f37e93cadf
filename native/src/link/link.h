/*
 * The client's end of one VM's stream to one server, after the handshake.
 *
 * Who reads: the vCPU thread reads the stream itself while it waits for a feedback; the event
 * thread (link_serve) reads it the rest of the time. The socket is disarmed in the event thread's
 * epoll set for the length of a wait, so that an answer wakes only the thread that wants it. Where
 * one wait follows another at once (the link is *polled*) it stays disarmed between them, as arming and
 * disarming cost as much as a tenth of an access: then the event thread looks every LINK_TICK_NS
 * whether there were waits since, and arms the socket again when there were few. Where the bytes go
 * through memory (shm_stream.h) the socket stays armed, and it is the server's doorbell that is.
 * Who writes: any thread, under the transmit lock, one send per frame.
 *
 * Lock order: receive before transmit before inbox.
 */
#ifndef KVMSHIM_LINK_H
#define KVMSHIM_LINK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec.h"
#include "vm/control.h"
#include "wait/shm_stream.h"
#include "link/lease.h"
#include "wait/spin_wait.h"

enum link_wait {
    LINK_ADAPTIVE = SPIN_WAIT_ADAPTIVE,
    LINK_SPIN = SPIN_WAIT_SPIN,
    LINK_BLOCK = SPIN_WAIT_BLOCK,
};

enum link_state {
    LINK_OPEN,
    LINK_CLOSED,    /* the server closed the connection, or said ERROR or BUSY (in the inbox) */
    LINK_BROKEN,    /* a system call failed; link.error_number says how */
    LINK_VIOLATED,  /* the server broke the protocol; link.error says how */
    LINK_TIMED_OUT, /* the server was silent for too long */
};

/* What an operation gives: 0, or one of these. */
enum { LINK_LOST = -1, LINK_STOPPED = -2, LINK_REFUSED = -3 };

enum {
    LINK_LINES = 1024,      /* interrupt lines that a server may drive */
    LINK_BATCHES = 1024,    /* batches that may be unacknowledged */
    LINK_BATCH_WRITES = 64, /* a batch this long is sent at once */
    LINK_INBOX_HIGH = 4 << 20, /* the guest pauses while so many bytes wait for Python */
    LINK_INBOX_FULL = 8 << 20, /* nothing more is read then, and the server waits */
    LINK_FULL_NAP_MS = 2,      /* until that is looked at again */
    LINK_POLLED_WAITS = 16,       /* so many waits in quick succession make a link polled */
    LINK_HOT_NS = 50000,       /* a wait that begins so soon after another is in quick succession */
    LINK_TICK_NS = 500000,
    LINK_LATE_FLUSHES = 10,    /* so much longer the timer waits for a vCPU that flushes by itself */
    LINK_NAP_US = 20000,       /* a stop that just misses a sleep is noticed so much later */
};

struct link_stats {
    uint64_t requests;  /* accesses that waited for an answer */
    uint64_t posted;    /* writes that did not */
    uint64_t batches;
    uint64_t interrupts; /* level changes received */
    uint64_t leases;    /* LEASEs received */
    uint64_t frames_in;
    uint64_t sends;     /* send system calls */
    uint64_t spun;      /* waits that ended while spinning */
    uint64_t slept;     /* waits that had to block */
    uint64_t stalls;    /* times that a posted write found the window full */
    uint64_t woken;    /* times that the event thread was woken by what came */
};

struct link {
    int fd;
    int epoll_fd;
    int timer_fd; /* flushes a batch that nothing else flushes */
    int tick_fd;  /* timerfd, ticks while the link is polled */
    int wake_fd;  /* ends or rouses link_serve */
    int inbox_fd; /* eventfd, readable when the inbox has messages or the state has changed */
    struct shm_stream shm;
    struct control *control;
    uint32_t server_id, vm_id, client_id;
    uint8_t source; /* of interrupt lines (lines.h) */
    uint8_t hypervisor;

    _Atomic bool ending; /* somebody writes the reason; the state follows */
    _Atomic int state;
    int error_number;
    char error[200];

    pthread_mutex_t tx_lock;
    uint8_t *out;
    size_t out_used, out_size;
    _Atomic bool out_waiting; /* bytes are left over that the socket did not take */
    _Atomic bool watched_for_room; /* the event thread was asked to see when it takes them */
    _Atomic uint64_t sent;
    uint8_t batch[LINK_BATCH_WRITES * CODEC_WRITE_BYTES];
    uint32_t batch_writes;
    uint32_t window; /* writes that may be unacknowledged */
    uint32_t in_flight;
    struct { uint64_t seq; uint32_t writes; } outstanding[LINK_BATCHES];
    uint32_t outstanding_head, outstanding_count;
    uint64_t flush_after_ns;
    uint64_t posted_ns, batch_ns; /* VM time of the last posted write, and of the batch's first */
    uint64_t flushes, flushes_seen; /* by who posts; at the timer's last expiry */
    bool timer_set;

    pthread_mutex_t rx_lock;
    uint8_t *in;
    size_t in_start, in_used, in_size;
    _Atomic uint64_t received;
    _Atomic uint64_t acknowledged;
    _Atomic uint64_t awaited; /* the request whose answer is awaited, or 0 */
    _Atomic bool answered;
    uint8_t status;
    uint32_t reply_length;
    uint8_t reply[CODEC_MAX_DATA];
    _Atomic uint64_t ponged;
    uint64_t pinged;
    uint64_t line_number[LINK_LINES];
    struct leases *leases; /* NULL: this client takes none */
    _Atomic uint64_t settled; /* applied, with all that it caused told: by answer, PONG or ACK */

    pthread_mutex_t inbox_lock;
    uint8_t *inbox;
    _Atomic size_t inbox_used;
    size_t inbox_size;
    _Atomic bool held_back; /* something was left unread because the inbox was full */
    _Atomic int settling; /* who takes the inbox may be waiting itself: it takes whatever comes */

    struct spin_wait spin_wait; /* the receive lock is held to look at this and the next five */
    bool polled;
    uint32_t quick_waits;
    int64_t began_ns; /* when the last wait began */
    uint64_t waits_ended, waits_seen; /* in all; at the event thread's last tick */
    uint64_t heartbeat_ns, deadline_ns;
    _Atomic int64_t heard_ns;
    _Atomic int64_t asked_ns;

    _Atomic bool closing;
    struct link_stats stats;
};

struct link_setup {
    int fd; /* a connected stream socket, owned by the caller */
    int memory_fd; /* what the bytes go through instead, from now on; -1: nothing */
    uint32_t server_id, vm_id, client_id;
    uint8_t source; /* of interrupt lines (lines.h) */
    uint8_t hypervisor;
    uint64_t sent, received;
    const uint8_t *rest; /* bytes that were read behind the handshake */
    size_t rest_length;
    uint32_t window;
    int wait_mode;
    uint64_t spin_ns, heartbeat_ns, deadline_ns, flush_after_ns;
    struct leases *leases; /* what may be leased; owned by the caller, may be NULL */
};

/* An access of a guest: size * elements bytes, to or from data. */
struct link_access {
    uint32_t device_id;
    uint8_t direction, space, size;
    uint64_t address;
    uint32_t elements;
    uint8_t *data;
};

/* NULL with errno set when out of memory or descriptors. */
struct link *link_new(struct control *control, const struct link_setup *setup);
void link_free(struct link *link);

/* An access that waits: fills data for an IN. 0, LINK_LOST, LINK_STOPPED or LINK_REFUSED. */
int link_request(struct link *link, const struct link_access *access);
/*
 * One posted access of one element: a write, or a read that was answered from a lease. Waits only
 * while the window is full. *seq: the number of the message that it travels in.
 */
int link_post_at(struct link *link, const struct link_access *access, uint64_t time_ns,
                 uint64_t *seq);
/* Whether a posted access would not wait. */
bool link_has_room(struct link *link);
/* Whether the server has acknowledged all posted accesses. */
bool link_is_clear(struct link *link);
/* Sends what is batched. */
void link_flush(struct link *link);
/* Sends what is batched and waits until the server has applied all posted accesses. */
int link_fence(struct link *link);
/* Barrier: when it returns, the server has applied everything that was sent before, and every message
 * that this caused has arrived. */
int link_barrier(struct link *link);
/* Sends a numbered message of Python's (FEED, CLOCK, DETACH) behind what is batched; LINK_REFUSED
 * if it is too long. */
int link_send(struct link *link, const struct message *message);

/* Reads the stream while no vCPU does; returns when the link ends or link_close() is called. */
void link_serve(struct link *link);
void link_close(struct link *link);

/* Copies up to room bytes of the inbox: whole messages if room is an earlier link_inbox_bytes(). */
size_t link_inbox_bytes(struct link *link);
size_t link_take(struct link *link, uint8_t *out, size_t room);

#endif
