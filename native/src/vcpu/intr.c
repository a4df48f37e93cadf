#include "vcpu/intr.h"

#include <errno.h>
#include <sys/ioctl.h>

#include "vcpu/access.h"

int intr_wire(struct vcpu *vcpu)
{
    struct line_change change;
    bool any = false;
    while (lines_next(&vcpu->control->lines, &change)) {
        vcpu->wire = change.level;
        struct vcpu_access write = {
            .space = SPACE_BUS,
            .direction = 1,
            .size = 1,
            .elements = 1,
            .address = BUS_LINES + change.line,
            .data = &vcpu->wire,
        };
        int result = access_serve(vcpu, &write);
        if (result != CARRY_ON)
            return result;
        any = true;
    }
    if (any && vcpu->last_link < ROUTE_LINKS)
        link_flush(vcpu->routes->links[vcpu->last_link]);
    return CARRY_ON;
}

bool intr_asked(const struct vcpu *vcpu)
{
    return atomic_load(&vcpu->control->lines.asked);
}

int intr_acknowledge(struct vcpu *vcpu)
{
    struct vcpu_access read = {
        .space = SPACE_BUS,
        .direction = 0,
        .size = 1,
        .elements = 1,
        .address = BUS_ACKNOWLEDGE,
        .data = &vcpu->vector,
    };
    return access_serve(vcpu, &read);
}

/* -- with KVM -------------------------------------------------------------------------------- */

static int inject(struct vcpu *vcpu)
{
    struct kvm_interrupt interrupt = { .irq = vcpu->vector };
    vcpu->acknowledging = false;
    if (ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt) < 0) {
        vcpu->detail = (uint64_t)errno;
        return VCPU_FAILED;
    }
    vcpu->run->ready_for_interrupt_injection = 0; /* until the guest has taken this one */
    vcpu->halted = false;
    return CARRY_ON;
}

int intr_resume(struct vcpu *vcpu)
{
    return vcpu->acknowledging ? inject(vcpu) : CARRY_ON;
}

int intr_turn(struct vcpu *vcpu)
{
    if (!vcpu->control->lines.outside)
        return CARRY_ON;
    struct kvm_run *run = vcpu->run;
    int result = intr_wire(vcpu);
    if (result != CARRY_ON)
        return result;
    if (intr_asked(vcpu) && run->ready_for_interrupt_injection && run->if_flag) {
        vcpu->acknowledging = true;
        result = intr_acknowledge(vcpu);
        if (result != CARRY_ON)
            return result;
        result = inject(vcpu);
    }
    run->request_interrupt_window = intr_asked(vcpu);
    return result;
}
