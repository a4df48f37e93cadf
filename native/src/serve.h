/*
 * The server's end of a busy stream: receive one simple request, hand it to Python, send the answer
 * and at once look for the next, in one call.
 *
 * "Simple" is one frame with one REQUEST for one element. Whatever else arrives is handed to
 * Python as bytes. The Python way (devserver/session.py) does the same and is the reference.
 */
#ifndef KVMSHIM_SERVE_H
#define KVMSHIM_SERVE_H

#include <stddef.h>
#include <stdint.h>

enum { SERVE_BUFFER = 64 * 1024, SERVE_BEFORE = 4096 };

enum serve_found {
    SERVE_REQUEST, /* stream.request */
    SERVE_BYTES,   /* stream.received_bytes, in_used of them: not a simple request; not taken into account */
    SERVE_CLOSED,  /* the client has closed the connection */
    SERVE_FAILED,  /* stream.error_number */
    SERVE_IDLE,    /* nothing came for spin_ns */
    SERVE_TIMER,   /* due_ns is over */
    SERVE_OTHER,   /* another descriptor of the epoll set wants attention */
    SERVE_BLOCKED, /* the answer was not sent whole; the rest is in stream.out */
};

enum serve_answer { SERVE_NOTHING, SERVE_FEEDBACK, SERVE_FINISH };

struct serve_request {
    uint64_t seq, sent; /* its number, and that of the last message sent before it */
    uint64_t address, value, time_ns;
    uint32_t device_id;
    uint8_t direction, space, size;
};

struct serve_stream {
    int fd;
    int epoll_fd;
    uint32_t server_id, vm_id, client_id;
    uint8_t hypervisor;
    uint64_t sent, received, acknowledged;
    int64_t clock_offset_ns; /* the highest request time minus CLOCK_MONOTONIC so far */
    int64_t clock_highest_ns; /* a request whose time is further above it is for Python to refuse */
    int64_t spin_ns;         /* below 0: no end */
    struct serve_request request;
    int error_number;
    size_t in_used, out_used, before_used;
    uint8_t received_bytes[SERVE_BUFFER];
    uint8_t before[SERVE_BEFORE]; /* messages that stand before the next answer */
    uint8_t out[SERVE_BEFORE + 128];
};

struct serve_stream *serve_new(void);
void serve_free(struct serve_stream *stream);

/* Sends the answer to stream.request, if there is one, and waits for what comes next. */
int serve_next(struct serve_stream *stream, int answer, uint8_t status, uint64_t value,
               int64_t due_ns);

#endif
