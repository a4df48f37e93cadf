#include "vcpu/vcpu.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "vcpu/access.h"
#include "vcpu/irqchip.h"

/* -- exits -------------------------------------------------------------------------------- */

static struct vcpu_access port_access(struct kvm_run *run)
{
    return (struct vcpu_access){
        .space = SPACE_PORT,
        .direction = run->io.direction,
        .size = run->io.size,
        .elements = run->io.count,
        .address = run->io.port,
        .data = (uint8_t *)run + run->io.data_offset,
    };
}

static struct vcpu_access memory_access(struct kvm_run *run)
{
    return (struct vcpu_access){
        .space = SPACE_MEMORY,
        .direction = run->mmio.is_write,
        .size = (uint8_t)run->mmio.len,
        .elements = 1,
        .address = run->mmio.phys_addr,
        .data = run->mmio.data,
    };
}

/* -- the loop ----------------------------------------------------------------------------- */

/* Registers of the local APIC (Intel SDM vol. 3, table 11-1) and bits of its timer's (11.5.1). */
enum {
    APIC_IRR = 0x200, /* eight registers, 16 bytes apart */
    APIC_LVT_TIMER = 0x320,
    APIC_TIMER_COUNT = 0x390,
    LVT_MASKED = 1 << 16,
    LVT_TSC_DEADLINE = 2 << 17,
    LVT_TIMER_MODE = 3 << 17,
    MSR_TSC_DEADLINE = 0x6e0,
};

static uint32_t apic_register(const struct kvm_lapic_state *apic, int offset)
{
    uint32_t value;
    memcpy(&value, apic->regs + offset, sizeof value);
    return value;
}

static bool deadline_is_set(struct vcpu *vcpu)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } msrs = { .head.nmsrs = 1, .entry.index = MSR_TSC_DEADLINE };
    return ioctl(vcpu->fd, KVM_GET_MSRS, &msrs) != 1 || msrs.entry.data != 0;
}

/* Whether the processor's own timer, or an interrupt that it has already, may wake it. */
static bool may_wake_by_itself(struct vcpu *vcpu)
{
    struct kvm_lapic_state apic;
    if (ioctl(vcpu->fd, KVM_GET_LAPIC, &apic) < 0)
        return true;
    for (int i = 0; i < 8; i++)
        if (apic_register(&apic, APIC_IRR + 16 * i))
            return true;
    uint32_t timer = apic_register(&apic, APIC_LVT_TIMER);
    if (timer & LVT_MASKED)
        return false;
    return (timer & LVT_TIMER_MODE) == LVT_TSC_DEADLINE ? deadline_is_set(vcpu)
                                                        : apic_register(&apic, APIC_TIMER_COUNT);
}

/* Looks whether the processor is halted; whether it is so for good. */
static bool probe(struct vcpu *vcpu)
{
    struct kvm_mp_state state;
    if (vcpu->control->lines.userspace_irqchip) {
        coalesced_probed(vcpu->coalesced, vcpu->halted);
        return false; /* HLT with interrupts off is an exit */
    }
    bool halted = ioctl(vcpu->fd, KVM_GET_MP_STATE, &state) == 0 &&
                  state.mp_state == KVM_MP_STATE_HALTED;
    coalesced_probed(vcpu->coalesced, halted && !may_wake_by_itself(vcpu));
    return halted && !vcpu->run->if_flag;
}

int vcpu_wanted(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    uint32_t pending = control_pending(vcpu->control);
    if (pending & CONTROL_EVENT)
        return VCPU_EVENT;
    if (pending & CONTROL_STOP)
        return VCPU_STOPPED;
    if (pending & CONTROL_LINK)
        return VCPU_LINK_LOST;
    if (pending & CONTROL_PAUSE)
        return VCPU_PAUSED;
    if (pending & CONTROL_LINES) /* the loop looks at them each time round */
        control_clear(vcpu->control, CONTROL_LINES);
    return VCPU_CONTINUE;
}

/* KVM_RUN came back without an exit of the guest, or is not to be called: why? */
static int interrupted(struct vcpu *vcpu)
{
    int result = vcpu_wanted(vcpu);
    if (result != VCPU_CONTINUE || !(control_pending(vcpu->control) & CONTROL_PROBE))
        return result;
    control_clear(vcpu->control, CONTROL_PROBE);
    return probe(vcpu) ? VCPU_HALTED : VCPU_CONTINUE;
}

void vcpu_mark(struct vcpu *vcpu, uint16_t port)
{
    if (vcpu->marks && vcpu->mark_count < vcpu->mark_room)
        vcpu->marks[vcpu->mark_count++] = (struct vcpu_mark){ (uint64_t)monotonic_ns(), port };
}

static int on_exit_reason(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    struct vcpu_access access;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        vcpu->port_exits++;
        vcpu_mark(vcpu, run->io.port);
        access = port_access(run);
        return access_serve(vcpu, &access);
    case KVM_EXIT_MMIO:
        vcpu->memory_exits++;
        access = memory_access(run);
        return access_serve(vcpu, &access);
    case KVM_EXIT_SHUTDOWN:
        return VCPU_SHUTDOWN;
    case KVM_EXIT_HLT: /* only without an in-kernel interrupt controller */
        vcpu->halted = true;
        return run->if_flag ? VCPU_CONTINUE : VCPU_HALTED;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
        return VCPU_CONTINUE;
    case KVM_EXIT_FAIL_ENTRY:
        vcpu->detail = run->fail_entry.hardware_entry_failure_reason;
        return VCPU_ENTRY_FAILED;
    case KVM_EXIT_INTERNAL_ERROR:
        vcpu->detail = run->internal.suberror;
        return VCPU_INTERNAL;
    default:
        vcpu->detail = run->exit_reason;
        return VCPU_UNKNOWN_EXIT;
    }
}

void vcpu_wait_for_inboxes(struct vcpu *vcpu)
{
    for (int i = 0; i < ROUTE_LINKS && vcpu->routes->links[i]; i++) {
        struct link *link = vcpu->routes->links[i];
        while (link_inbox_bytes(link) > LINK_INBOX_HIGH && !control_pending(vcpu->control)) {
            struct timespec millisecond = { .tv_nsec = 1000000 };
            nanosleep(&millisecond, NULL);
        }
    }
}

/* Python has served a byte of an access that is served byte by byte: the rest of it. */
static int resume_pieces(struct vcpu *vcpu)
{
    struct vcpu_access access = vcpu->run->exit_reason == KVM_EXIT_MMIO
                                    ? memory_access(vcpu->run) : port_access(vcpu->run);
    return access_serve_rest(vcpu, &access);
}

/* Goes on where an access to a device in this process was served. */
static int resume(struct vcpu *vcpu)
{
    int result = irqchip_resume(vcpu);
    return result == VCPU_CONTINUE && vcpu->piece ? resume_pieces(vcpu) : result;
}

/* HLT, with interrupt controllers that KVM does not know: until something was notified since. */
static void sleep_halted(struct vcpu *vcpu, uint32_t notifications)
{
    coalesced_end(vcpu->coalesced);
    control_sleep(vcpu->control, notifications);
    coalesced_begin(vcpu->coalesced);
}

/*
 * KVM_RUN, with the ring left to its own thread meanwhile; what ioctl gives. exited: the guest has left
 * KVM_RUN since, so an earlier probe's answer is stale.
 */
static int enter_guest(struct vcpu *vcpu, bool exited)
{
    if (!vcpu->coalesced)
        return ioctl(vcpu->fd, KVM_RUN, 0);
    coalesced_end(vcpu->coalesced);
    if (exited)
        control_notify(vcpu->control);
    int result = ioctl(vcpu->fd, KVM_RUN, 0);
    int error = errno;
    coalesced_begin(vcpu->coalesced);
    errno = error;
    return result;
}

/* The access that the guest left for comes behind what it wrote before without leaving. */
static int after_guest(struct vcpu *vcpu, bool exited)
{
    int result = coalesced_drain(vcpu->coalesced);
    if (result != VCPU_CONTINUE)
        return result;
    if (!exited)
        return interrupted(vcpu);
    vcpu->exits++;
    halts_exit(&vcpu->halts, vcpu->routes);
    result = on_exit_reason(vcpu);
    halts_served(&vcpu->halts);
    vcpu_wait_for_inboxes(vcpu);
    return result;
}

/* KVM_RUN that runs nothing of the guest; what ioctl gives. */
static int enter_and_leave(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    int result = ioctl(vcpu->fd, KVM_RUN, 0);
    int error = errno;
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    errno = error;
    return result;
}

static int run_loop(struct vcpu *vcpu)
{
    bool exited = true;
    int result = resume(vcpu);
    /* A restored halted vCPU enters once, so that KVM says whether it takes an interrupt. */
    if (vcpu->halted)
        enter_and_leave(vcpu);
    while (result == VCPU_CONTINUE) {
        uint32_t notifications = control_notifications(vcpu->control);
        if (control_pending(vcpu->control) && (result = interrupted(vcpu)) != VCPU_CONTINUE)
            break;
        if ((result = irqchip_before_entry(vcpu)) != VCPU_CONTINUE)
            break;
        if (vcpu->halted) {
            sleep_halted(vcpu, notifications);
            continue;
        }
        exited = enter_guest(vcpu, exited) == 0;
        if (!exited && errno != EINTR && errno != EAGAIN) {
            vcpu->detail = (uint64_t)errno;
            return VCPU_FAILED;
        }
        result = after_guest(vcpu, exited);
    }
    return result;
}

static int with_control(struct vcpu *vcpu, int (*act)(struct vcpu *))
{
    control_enter(vcpu->control, vcpu->run);
    coalesced_begin(vcpu->coalesced);
    int result = act(vcpu);
    coalesced_end(vcpu->coalesced);
    control_leave(vcpu->control);
    return result;
}

int vcpu_run(struct vcpu *vcpu)
{
    return with_control(vcpu, run_loop);
}

/* An access that KVM serves in parts may leave again for the next one: until it does so no more. */
static int quiesce_loop(struct vcpu *vcpu)
{
    int result = resume(vcpu);
    while (result == VCPU_CONTINUE) {
        bool exited = enter_and_leave(vcpu) == 0;
        if (!exited && errno != EINTR) {
            vcpu->detail = (uint64_t)errno;
            return VCPU_FAILED;
        }
        result = coalesced_drain(vcpu->coalesced);
        if (result != VCPU_CONTINUE)
            break;
        if (!exited)
            return (result = irqchip_sync_lines(vcpu)) == VCPU_CONTINUE ? VCPU_PAUSED : result;
        vcpu->exits++;
        result = on_exit_reason(vcpu);
    }
    return result;
}

int vcpu_quiesce(struct vcpu *vcpu)
{
    return with_control(vcpu, quiesce_loop);
}

int vcpu_drain(struct vcpu *vcpu)
{
    coalesced_begin(vcpu->coalesced);
    int result = coalesced_drain(vcpu->coalesced);
    coalesced_end(vcpu->coalesced);
    return result == VCPU_CONTINUE ? 0 : -1;
}

int vcpu_complete(struct vcpu *vcpu)
{
    return enter_and_leave(vcpu) < 0 && errno == EINTR ? 0 : -1;
}
