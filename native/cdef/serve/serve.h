/* The server's data loop (native/src/serve/serve.h). */

enum serve_found {
    SERVE_BATCH,
    SERVE_UNKNOWN,
    SERVE_BYTES,
    SERVE_CLOSED,
    SERVE_FULL,
    SERVE_TIMER,
    SERVE_OTHER,
    SERVE_SIGNAL,
    SERVE_RESUME,
    ...
};

enum spin_wait_mode { SPIN_WAIT_ADAPTIVE, SPIN_WAIT_SPIN, SPIN_WAIT_BLOCK };

struct serve_counters {
    uint64_t sent, received, acknowledged;
    uint64_t posted, confirmed, window_start, unacknowledged;
};

struct serve_clock {
    int64_t running, offset_ns, stopped_ns;
};

struct serve_access {
    uint64_t address;
    uint32_t device_id;
    uint8_t direction, space, size;
    int32_t handle;
};

struct serve_stream {
    int fd;
    uint32_t id;
    uint8_t direct;
    uint8_t hypervisor;
    uint32_t server_id, vm_id, client_id;
    uint64_t window, ack_every;
    int64_t heard_ns;
    struct serve_counters counters;
    struct serve_clock clock;
    ...;
};

struct serve_exchange {
    uint64_t value, time_ns;
    uint64_t stream;
    uint64_t count, runs;
    uint64_t answer, status;
    uint64_t ack;
    uint64_t pass;
    uint64_t due_ns;
    uint64_t turn_end_ns;
};

struct serve_loop {
    struct serve_exchange exchange;
    struct serve_access access;
    int other_fd, error_number;
    const uint8_t *bytes;
    size_t bytes_used;
    uint32_t handles[...];
    uint32_t run_handles[...], run_counts[...];
    uint64_t values[...], times[...];
    ...;
};

struct serve_loop *serve_new(int mode, int64_t spin_ns, int64_t turn_ns);
void serve_free(struct serve_loop *loop);
struct serve_stream *serve_add(struct serve_loop *loop, int fd, uint32_t id);
void serve_remove(struct serve_loop *loop, struct serve_stream *stream);
int serve_share(struct serve_loop *loop, struct serve_stream *stream);
int serve_watch(struct serve_loop *loop, int fd, int on);
int serve_bind(struct serve_stream *stream, const struct serve_access *access);
void serve_unbind(struct serve_stream *stream);
int serve_put_interrupt(struct serve_loop *loop, uint32_t line, uint8_t level, uint64_t number);
int serve_put(struct serve_loop *loop, const uint8_t *message, size_t length);
int serve_flush(struct serve_loop *loop, struct serve_stream *stream);
int serve_send(struct serve_loop *loop, struct serve_stream *stream, const uint8_t *frames,
               size_t length);
void serve_pause(struct serve_loop *loop);
int serve_next(struct serve_loop *loop);
