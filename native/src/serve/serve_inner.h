/* What the parts of the data loop know of each other. */
#ifndef KVMSHIM_SERVE_INNER_H
#define KVMSHIM_SERVE_INNER_H

#include <time.h>

#include "serve/serve.h"

enum { SERVE_NOTHING = -100 }; /* go on */

/* CLOCK_MONOTONIC. */
static inline int64_t serve_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* serve_message.c: the messages of the current stream, from loop->at to loop->end. */
int serve_messages(struct serve_loop *loop);
bool serve_answer(struct serve_loop *loop);

/* serve_out.c */
bool out_message(struct serve_loop *loop, const struct message *message);
int out_end(struct serve_loop *loop, struct serve_stream *stream);
/* As out_end, at the end of a turn that did not suffice: it may wait for a later one. */
int out_hold(struct serve_loop *loop, struct serve_stream *stream);
/* Sends what was held. */
int out_flush(struct serve_loop *loop, struct serve_stream *stream);
int out_retry(struct serve_loop *loop, struct serve_stream *stream);
/* Has epoll tell of the stream what the loop does not find out by itself. */
void out_set_interest(struct serve_loop *loop, struct serve_stream *stream);

/* serve_turn.c: whose turn it is. */
enum { SERVE_BUFFER = SERVE_HEADER + CODEC_MAX_FRAME + SERVE_CHUNK };
void turn_begin(struct serve_loop *loop, struct serve_stream *stream);
/* Whether the current stream has had its share, and others are waiting. */
bool turn_is_over(struct serve_loop *loop);
/* Has the current stream wait for its next turn; SERVE_NOTHING, or as out_end. */
int turn_park(struct serve_loop *loop);
/* The current stream has nothing more to be served. */
int turn_end(struct serve_loop *loop);
/* Starts the turn of the first stream in the queue, if it has anything to say. */
int turn_from_queue(struct serve_loop *loop);
/* Whether a stream's own turn has to come before anything is received from it. */
bool turn_is_awaited(const struct serve_stream *stream);
/* Something happened at the socket of such a stream. */
void turn_stirred(struct serve_loop *loop, struct serve_stream *stream);
void turn_free_spares(struct serve_loop *loop);
void turn_forget(struct serve_loop *loop, struct serve_stream *stream);

bool has_backlog(const struct serve_stream *stream);
/* More waits for the client than SERVE_HIGH_OUT. */
bool is_choked(const struct serve_stream *stream);

/* serve_wait.c: receives from the next stream that has something, or waits for one. */
int serve_wait(struct serve_loop *loop);
/* Receives from a stream in the queue, which then has the turn if it has said something. */
int serve_receive(struct serve_loop *loop, struct serve_stream *stream);

#endif
