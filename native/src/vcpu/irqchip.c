#include "vcpu/irqchip.h"

#include <errno.h>
#include <sys/ioctl.h>

#include "vcpu/access.h"

int irqchip_sync_lines(struct vcpu *vcpu)
{
    struct line_change change;
    bool any = false;
    while (lines_next(&vcpu->control->lines, &change)) {
        vcpu->wire = change.level;
        struct vcpu_access write = {
            .space = SPACE_BUS,
            .direction = DIRECTION_OUT,
            .size = 1,
            .elements = 1,
            .address = BUS_LINES + change.line,
            .data = &vcpu->wire,
        };
        int result = access_serve(vcpu, &write);
        if (result != VCPU_CONTINUE)
            return result;
        any = true;
    }
    if (any && vcpu->last_link < ROUTE_LINKS)
        link_flush(vcpu->routes->links[vcpu->last_link]);
    return VCPU_CONTINUE;
}

bool irqchip_requests(const struct vcpu *vcpu)
{
    return atomic_load(&vcpu->control->lines.asked);
}

int irqchip_acknowledge(struct vcpu *vcpu)
{
    struct vcpu_access read = {
        .space = SPACE_BUS,
        .direction = DIRECTION_IN,
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
    return VCPU_CONTINUE;
}

int irqchip_resume(struct vcpu *vcpu)
{
    return vcpu->acknowledging ? inject(vcpu) : VCPU_CONTINUE;
}

int irqchip_before_entry(struct vcpu *vcpu)
{
    if (!vcpu->control->lines.userspace_irqchip)
        return VCPU_CONTINUE;
    struct kvm_run *run = vcpu->run;
    int result = irqchip_sync_lines(vcpu);
    if (result != VCPU_CONTINUE)
        return result;
    if (irqchip_requests(vcpu) && run->ready_for_interrupt_injection && run->if_flag) {
        vcpu->acknowledging = true;
        result = irqchip_acknowledge(vcpu);
        if (result != VCPU_CONTINUE)
            return result;
        result = inject(vcpu);
    }
    run->request_interrupt_window = irqchip_requests(vcpu);
    return result;
}
