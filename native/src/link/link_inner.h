/*
 * What the parts of a link share. Each uses those before it: link_end.c ends it; link_send.c fills
 * and empties the transmit buffer; link_receive.c acts on what comes in; link_wait.c waits;
 * link_serve.c is the event thread; link.c makes and frees it and serves the vCPU.
 */
#ifndef KVMSHIM_LINK_INNER_H
#define KVMSHIM_LINK_INNER_H

#include "link/link.h"

enum {
    LINK_FIRST_BUFFER = 64 * 1024,
    LINK_FRAME_HEADER = 4,
    LINK_INBOX_KEPT = 1 << 20, /* of an empty inbox no more memory is kept */
};

/* -- its end (link_end.c) -- */

void end_link(struct link *link, int state, int error_number, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void wake(int event_fd);

static inline bool is_open(struct link *link)
{
    return atomic_load_explicit(&link->state, memory_order_acquire) == LINK_OPEN;
}

/* -- sending (link_send.c); the transmit lock is held, except for say() -- */

/* A frame: begin, any number of messages, end. Then push. */
size_t tx_begin(struct link *link);
void tx_message(struct link *link, struct message *message);
void tx_batch(struct link *link);
void tx_end(struct link *link, size_t at);
/* Hands the socket what it takes; the rest waits for whoever polls the socket next. */
void tx_push(struct link *link);
/* The same for what is left over; takes the transmit lock. */
void push_rest(struct link *link);
/* The batch, in a frame of its own, pushed. */
void tx_flush(struct link *link);
/* Forgets the batches that the server has acknowledged. */
void tx_reap(struct link *link);
/* The event thread is to send the batch by then, if nobody else has. */
void start_flush_timer(struct link *link, uint64_t after_ns);
/* Sends one message that is not numbered. */
void say(struct link *link, struct message *message);
/* What the event thread watches the socket for; the receive lock is held too. */
void arm(struct link *link, uint32_t events);
/* It is to see when there is room for what is left over. */
void arm_for_room(struct link *link);

/* -- receiving (link_receive.c); the receive lock is held -- */

enum how_to_receive {
    RX_LOOK,  /* what is there */
    RX_ASK,   /* the same, and whether the server is; the event thread is told of what comes later */
    RX_SLEEP, /* until something is there, a signal comes, or LINK_NAP_US are over */
};

/* Whether nothing is to be read until Python has taken some of what there is. */
bool inbox_is_full(struct link *link);
/* Reads what is there and acts on it; false if nothing was there, or nothing is to be read. */
bool receive(struct link *link, enum how_to_receive how);
/* Acts on the whole frames in the receive buffer. */
void rx_frames(struct link *link);
/* Makes room for the rest of a frame that is longer than the buffer. */
bool rx_room(struct link *link);
void protocol_error(struct link *link, const char *what, uint64_t got, uint64_t wanted);

/* -- waiting (link_wait.c) -- */

/* Reads the stream until done; 0, LINK_LOST or LINK_STOPPED. No lock is held. */
int wait_for(struct link *link, bool (*done)(struct link *));
/* The event thread's tick: arms the socket again if the link is polled no longer. */
void cool_down(struct link *link);
/* Asks a silent server for a sign of life, and gives it up when it shows none. */
void look_after(struct link *link);
int heartbeat_ms(const struct link *link);

#endif
