/* One VM's control, and its stream to one server (native/src/vm/control.h, link.h). */

#define CONTROL_STOP ...
#define CONTROL_PAUSE ...
#define CONTROL_EVENT ...
#define CONTROL_LINK ...
#define CONTROL_PROBE ...

struct control { int stop_fd; bool idling; int64_t stopped_ns; ...; };

struct control *control_new(int vm_fd);
void control_free(struct control *control);
uint64_t control_time_ns(struct control *control);
void control_clock_start(struct control *control);
void control_clock_stop(struct control *control);
void control_clock_set(struct control *control, uint64_t time_ns);
void control_raise(struct control *control, uint32_t reason);
void control_notify(struct control *control);
uint32_t control_notifications(struct control *control);
void control_sleep(struct control *control, uint32_t notifications);
void control_enter(struct control *control, struct kvm_run *run);
void control_leave(struct control *control);
int control_line(struct control *control, unsigned source, uint32_t line, bool level);
int control_hold_lines(struct control *control, bool hold);
void control_userspace_irqchip(struct control *control);
bool control_lines_pending(struct control *control);
void control_forget_links(struct control *control);
void control_clear(struct control *control, uint32_t reasons);
uint32_t control_pending(struct control *control);

enum link_wait { LINK_ADAPTIVE, LINK_SPIN, LINK_BLOCK };
enum link_state { LINK_OPEN, LINK_CLOSED, LINK_BROKEN, LINK_VIOLATED, LINK_TIMED_OUT };
#define LINK_LOST ...
#define LINK_STOPPED ...
#define LINK_REFUSED ...

struct link_stats {
    uint64_t requests, posted, batches, interrupts, leases, frames_in, sends, spun, slept, stalls,
        woken;
    ...;
};

struct link {
    int inbox_fd;
    int state;
    int error_number;
    char error[200];
    struct link_stats stats;
    ...;
};

struct link_setup {
    int fd;
    int memory_fd;
    uint32_t server_id, vm_id, client_id;
    uint8_t source;
    uint8_t hypervisor;
    uint64_t sent, received;
    const uint8_t *rest;
    size_t rest_length;
    uint32_t window;
    int wait_mode;
    uint64_t spin_ns, heartbeat_ns, deadline_ns, flush_after_ns;
    struct leases *leases;
    ...;
};

struct link_access {
    uint32_t device_id;
    uint8_t direction, space, size;
    uint64_t address;
    uint32_t elements;
    uint8_t *data;
    ...;
};

struct link *link_new(struct control *control, const struct link_setup *setup);
void link_free(struct link *link);
int link_request(struct link *link, const struct link_access *access);
void link_flush(struct link *link);
int link_fence(struct link *link);
int link_barrier(struct link *link);
int link_send(struct link *link, const struct message *message);
void link_serve(struct link *link);
void link_close(struct link *link);
size_t link_inbox_bytes(struct link *link);
size_t link_take(struct link *link, uint8_t *out, size_t room);
