/* What the parts of the data loop know of each other. */
#ifndef KVMSHIM_SERVE_INNER_H
#define KVMSHIM_SERVE_INNER_H

#include "serve/serve.h"

enum { SERVE_NOTHING = -100 }; /* go on */

int64_t serve_now_ns(void);

/* serve_message.c: the messages of the current stream, from loop->at to loop->end. */
int serve_messages(struct serve_loop *loop);
bool serve_answer(struct serve_loop *loop);

/* serve_out.c */
bool out_message(struct serve_loop *loop, const struct message *message);
int out_end(struct serve_loop *loop, struct serve_stream *stream);
int out_retry(struct serve_loop *loop, struct serve_stream *stream);

bool has_backlog(const struct serve_stream *stream);
/* More waits for the client than SERVE_HIGH_OUT. */
bool is_choked(const struct serve_stream *stream);

/* serve_wait.c: receives from the next stream that has something, or waits for one. */
int serve_wait(struct serve_loop *loop);

#endif
