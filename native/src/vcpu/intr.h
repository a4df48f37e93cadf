/*
 * Interrupt controllers that are a device, on a server or in this process, instead of KVM's own.
 *
 * What the wires between processor, controllers and devices do is said to that device as accesses
 * in an address space that no instruction of the guest reaches: a write of BUS_LINES + n is the
 * level of interrupt line n, a read of BUS_ACKNOWLEDGE the processor's interrupt acknowledge cycle,
 * which gives the vector (Intel 8259A data sheet, interrupt sequence). That the controllers ask the
 * processor they say with a line, LINE_INTR.
 */
#ifndef KVMSHIM_INTR_H
#define KVMSHIM_INTR_H

#include "vcpu/vcpu.h"

enum {
    SPACE_BUS = 2,
    BUS_ACKNOWLEDGE = 0,
    BUS_LINES = 16,
};

/*
 * Tells the controllers what their lines did since; CARRY_ON, or why the vCPU is to leave: after
 * VCPU_LOCAL it is to be called again.
 */
int intr_wire(struct vcpu *vcpu);
/* Whether the controllers ask the processor. */
bool intr_asked(const struct vcpu *vcpu);
/*
 * Has them tell the vector, which is in vcpu->vector when this gives CARRY_ON, or when the access
 * to a device in this process for which it gives VCPU_LOCAL was served.
 */
int intr_acknowledge(struct vcpu *vcpu);

/*
 * Before a guest of KVM is entered: wires, and injects an interrupt (KVM_INTERRUPT) if one is asked
 * for and the guest takes it, or has KVM leave when it does. Results as those of intr_wire.
 */
int intr_turn(struct vcpu *vcpu);
/* Does what intr_turn left to be done when the access to a device in this process was served. */
int intr_resume(struct vcpu *vcpu);

#endif
