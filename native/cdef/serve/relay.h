/* Bytes handed on between sockets (native/src/serve/relay.h). */

struct relay;

struct relay *relay_new(int mode, int64_t spin_ns);
void relay_run(struct relay *relay);
int relay_add(struct relay *relay, int one, int other);
unsigned relay_count(struct relay *relay);
void relay_stop(struct relay *relay);
void relay_free(struct relay *relay);
