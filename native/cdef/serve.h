/* The server's end of a busy stream (native/src/serve.h). */

enum serve_found {
    SERVE_REQUEST,
    SERVE_BYTES,
    SERVE_CLOSED,
    SERVE_FAILED,
    SERVE_IDLE,
    SERVE_TIMER,
    SERVE_OTHER,
    SERVE_BLOCKED,
};

enum serve_answer { SERVE_NOTHING, SERVE_FEEDBACK, SERVE_FINISH };

struct serve_request {
    uint64_t seq, sent;
    uint64_t address, value, time_ns;
    uint32_t device_id;
    uint8_t direction, space, size;
    ...;
};

struct serve_stream {
    int fd;
    int epoll_fd;
    uint32_t server_id, vm_id, client_id;
    uint8_t hypervisor;
    uint64_t sent, received, acknowledged;
    int64_t clock_offset_ns;
    int64_t clock_highest_ns;
    int64_t spin_ns;
    struct serve_request request;
    int error_number;
    size_t in_used, out_used, before_used;
    uint8_t received_bytes[65536];
    uint8_t before[4096];
    uint8_t out[...];
    ...;
};

struct serve_stream *serve_new(void);
void serve_free(struct serve_stream *stream);
int serve_next(struct serve_stream *stream, int answer, uint8_t status, uint64_t value,
               int64_t due_ns);
