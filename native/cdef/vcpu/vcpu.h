/* The loop that runs a virtual CPU (native/src/vcpu/vcpu.h). */

enum vcpu_exit {
    VCPU_STOPPED,
    VCPU_EVENT,
    VCPU_LINK_LOST,
    VCPU_LOCAL,
    VCPU_SHUTDOWN,
    VCPU_HALTED,
    VCPU_ENTRY_FAILED,
    VCPU_INTERNAL,
    VCPU_UNKNOWN_EXIT,
    VCPU_FAILED,
    VCPU_REFUSED,
    VCPU_PAUSED,
};

struct vcpu_mark {
    uint64_t time_ns;
    uint16_t port;
    ...;
};

struct coalesced;

struct vcpu {
    int fd;
    struct kvm_run *run;
    struct control *control;
    struct routes *routes;
    uint64_t detail;
    struct vcpu_access access;
    uint8_t vector;
    bool halted;
    uint64_t exits, port_exits, memory_exits, unclaimed, leased, coalesced_writes, waited_writes;
    struct coalesced *coalesced;
    struct unclaimed *unclaimed_places;
    const uint64_t *emulated_code;
    struct vcpu_mark *marks;
    size_t mark_count, mark_room;
    ...;
};

int vcpu_run(struct vcpu *vcpu);
int vcpu_drain(struct vcpu *vcpu);
int vcpu_quiesce(struct vcpu *vcpu);
int vcpu_complete(struct vcpu *vcpu);
int vcpu_wanted(struct vcpu *vcpu);

/* Interrupt controllers that are a device (native/src/vcpu/irqchip.h). */
int irqchip_sync_lines(struct vcpu *vcpu);
bool irqchip_requests(const struct vcpu *vcpu);
int irqchip_acknowledge(struct vcpu *vcpu);

/* One access of its guest (native/src/vcpu/access.h). */
#define VCPU_CONTINUE ...
int access_serve(struct vcpu *vcpu, const struct vcpu_access *access);
