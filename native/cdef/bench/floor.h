/* Floors for benchmarks (native/src/bench/floor.h). */

int floor_exits(int vcpu_fd, struct kvm_run *run, uint64_t *samples, size_t count);
int floor_coalesced(int vm_fd, int vcpu_fd, struct kvm_run *run, uint32_t ring_page, uint16_t port,
                    uint64_t *samples, size_t count);
struct floor_trip {
    int near, far;
    size_t request_bytes, answer_bytes;
    int spin, memory, far_core;
    int vcpu_fd;
    struct kvm_run *run;
};
int floor_pingpong(const struct floor_trip *trip, uint64_t *samples, size_t count);
int floor_irq_line(int vm_fd, uint32_t line, uint64_t *samples, size_t count);

struct floor_interrupt {
    uint32_t line;
    uint16_t line_port, mark_port;
};
int floor_irq_delivery(int vm_fd, int vcpu_fd, struct kvm_run *run,
                       const struct floor_interrupt *interrupt, uint64_t *samples, size_t count);
