/*
 * A guest that the Unicorn engine (engine.h) runs instead of KVM: what the engine calls while it
 * does so, with the signatures that it wants.
 *
 * Accesses are served by the same code as KVM's exits. Before each of the guest's instructions
 * emulated_step() looks whether somebody wants the vCPU, so it is left between two instructions,
 * never in the middle of a translated block.
 */
#ifndef KVMSHIM_EMULATED_H
#define KVMSHIM_EMULATED_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/vcpu.h"

enum {
    EMULATED_NO_TRAP = -1,
    /* One instruction (PUSHA, FXSAVE) writes no more than this to a ROM in one go. */
    EMULATED_UNDO_BYTES = 512,
};

/* What a write was about to change that must not change. */
struct emulated_undo {
    uint64_t address;
    uint8_t before;
};

struct emulated {
    struct vcpu *vcpu;
    /* Has the device in this process serve vcpu->access; 0, or -1 if it failed. */
    int (*serve_local)(void *context);
    void *context;
    /* why the engine has come back */
    int result;   /* VCPU_CONTINUE, or one of enum vcpu_exit */
    int trap;     /* vector of an exception or INT that is to be delivered, or EMULATED_NO_TRAP */
    bool stopped; /* emulated_step() found that somebody wants the vCPU */
    /* the instruction that was begun last */
    uint64_t address; /* linear */
    uint32_t size;
    uint32_t undo_count;
    struct emulated_undo undo[EMULATED_UNDO_BYTES];
};

/* Physical addresses from start on that have no memory; the context of their accesses. */
struct emulated_window {
    struct emulated *emulated;
    uint64_t start;
};

/* A page in place of KVM's own, by which control.h reaches the vCPU; NULL without memory. */
struct kvm_run *emulated_run_page(void);
void emulated_free_run_page(struct kvm_run *run);

/* To be called before the engine is started. */
void emulated_prepare(struct emulated *emulated);
/* Whether the processor would take an interrupt now, before its next instruction. */
bool emulated_takes_interrupt(void *engine, const struct emulated *emulated);

/* Puts back what the last instruction wrote to a ROM; also to be called when the engine is back. */
void emulated_undo(void *engine, struct emulated *emulated);

/* Called by the engine. The context is a struct emulated; that of read and write is a window. */
uint32_t emulated_in(void *engine, uint32_t port, int size, void *context);
void emulated_out(void *engine, uint32_t port, int size, uint32_t value, void *context);
uint64_t emulated_read(void *engine, uint64_t offset, unsigned size, void *context);
void emulated_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *context);
bool emulated_write_rom(void *engine, int type, uint64_t address, int size, int64_t value,
                        void *context);
void emulated_trap(void *engine, uint32_t vector, void *context);
void emulated_step(void *engine, uint64_t address, uint32_t size, void *context);

#endif
