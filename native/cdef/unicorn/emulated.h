/* A guest that an emulator runs (native/src/unicorn/emulated.h). */

#define EMULATED_NO_TRAP ...

struct emulated {
    struct vcpu *vcpu;
    int (*serve_local)(void *context);
    void *context;
    int result;
    int trap;
    bool stopped;
    uint64_t address;
    uint32_t size;
    ...;
};

struct emulated_window {
    struct emulated *emulated;
    uint64_t start;
};

struct kvm_run *emulated_run_page(void);
void emulated_free_run_page(struct kvm_run *run);
void emulated_prepare(struct emulated *emulated);
bool emulated_takes_interrupt(void *engine, const struct emulated *emulated);
void emulated_undo(void *engine, struct emulated *emulated);
uint32_t emulated_in(void *engine, uint32_t port, int size, void *context);
void emulated_out(void *engine, uint32_t port, int size, uint32_t value, void *context);
uint64_t emulated_read(void *engine, uint64_t offset, unsigned size, void *context);
void emulated_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *context);
bool emulated_write_rom(void *engine, int type, uint64_t address, int size, int64_t value,
                        void *context);
void emulated_trap(void *engine, uint32_t vector, void *context);
void emulated_step(void *engine, uint64_t address, uint32_t size, void *context);

extern "Python" int emulated_serve_local(void *context);
