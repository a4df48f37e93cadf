/* Floors for benchmarks (native/src/floor.h). */

int floor_exits(int vcpu_fd, struct kvm_run *run, uint64_t *samples, size_t count);
int floor_pingpong(int near, int far, size_t request_bytes, size_t answer_bytes, int spin,
                   uint64_t *samples, size_t count);
int floor_disarm(uint64_t *samples, size_t count);
int floor_irq_line(int vm_fd, uint32_t line, uint64_t *samples, size_t count);
