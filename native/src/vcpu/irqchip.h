/*
 * Interrupt controllers that are a device, on a server or in this process, instead of KVM's own.
 *
 * What the wires between processor, controllers and devices do is said to that device as accesses
 * in an address space that no instruction of the guest reaches: a write of BUS_LINES + n is the
 * level of interrupt line n, a read of BUS_ACKNOWLEDGE the processor's interrupt acknowledge cycle,
 * which gives the vector (Intel 8259A data sheet, interrupt sequence). That the controllers ask the
 * processor they say with a line, LINE_INTR.
 */
#ifndef KVMSHIM_IRQCHIP_H
#define KVMSHIM_IRQCHIP_H

#include "vcpu/vcpu.h"

enum {
    BUS_ACKNOWLEDGE = 0,
    BUS_LINES = 16,
};

/*
 * Tells the controllers what their lines did since; VCPU_CONTINUE, or why the vCPU is to leave: after
 * VCPU_LOCAL it is to be called again.
 */
int irqchip_sync_lines(struct vcpu *vcpu);
/* Whether the controllers ask the processor. */
bool irqchip_requests(const struct vcpu *vcpu);
/*
 * Has them tell the vector, which is in vcpu->vector when this gives VCPU_CONTINUE, or when the access
 * to a device in this process for which it gives VCPU_LOCAL was served.
 */
int irqchip_acknowledge(struct vcpu *vcpu);

/*
 * Before a guest of KVM is entered: wires, and injects an interrupt (KVM_INTERRUPT) if one is asked
 * for and the guest takes it, or has KVM leave when it does. Results as those of irqchip_sync_lines.
 */
int irqchip_before_entry(struct vcpu *vcpu);
/* Does what irqchip_before_entry left to be done when the access to a device in this process was served. */
int irqchip_resume(struct vcpu *vcpu);

#endif
