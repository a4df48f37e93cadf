#include "unicorn/engine.h"

#include <dlfcn.h>
#include <stdbool.h>

enum {
    ARCH_X86 = 4,    /* UC_ARCH_X86 */
    MODE_32 = 1 << 2 /* UC_MODE_32 */
};
/* No guest gets there: it is left in other ways. */
static const uint64_t nowhere = UINT64_MAX;

/* IDTR and GDTR (uc_x86_mmr). */
struct table {
    uint16_t selector;
    uint64_t base;
    uint32_t limit;
    uint32_t flags;
};

static struct {
    unsigned (*version)(unsigned *major, unsigned *minor);
    int (*open)(int arch, int mode, void **engine);
    int (*close)(void *engine);
    int (*start)(void *engine, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    int (*stop)(void *engine);
    int (*reg_read)(void *engine, int number, void *value);
    int (*reg_write)(void *engine, int number, const void *value);
    int (*mem_read)(void *engine, uint64_t address, void *bytes, uint64_t size);
    int (*mem_write)(void *engine, uint64_t address, const void *bytes, uint64_t size);
    int (*mem_map_ptr)(void *engine, uint64_t address, uint64_t size, uint32_t access, void *memory);
    int (*mmio_map)(void *engine, uint64_t address, uint64_t size, void *read, void *read_context,
                    void *write, void *write_context);
    int (*hook_add)(void *engine, size_t *hook, int type, void *function, void *context,
                    uint64_t begin, uint64_t end, ...);
    size_t (*context_size)(void *engine);
    int (*context_alloc)(void *engine, void **context);
    int (*context_save)(void *engine, void *context);
    int (*context_restore)(void *engine, void *context);
    int (*context_free)(void *context);
    const char *(*strerror)(int error);
} library;

static const struct {
    const char *name;
    void *function;
} functions[] = {
    { "uc_version", &library.version },
    { "uc_open", &library.open },
    { "uc_close", &library.close },
    { "uc_emu_start", &library.start },
    { "uc_emu_stop", &library.stop },
    { "uc_reg_read", &library.reg_read },
    { "uc_reg_write", &library.reg_write },
    { "uc_mem_read", &library.mem_read },
    { "uc_mem_write", &library.mem_write },
    { "uc_mem_map_ptr", &library.mem_map_ptr },
    { "uc_mmio_map", &library.mmio_map },
    { "uc_hook_add", &library.hook_add },
    { "uc_context_size", &library.context_size },
    { "uc_context_alloc", &library.context_alloc },
    { "uc_context_save", &library.context_save },
    { "uc_context_restore", &library.context_restore },
    { "uc_context_free", &library.context_free },
    { "uc_strerror", &library.strerror },
};

/* 2.0 crashes with what is asked of it here. */
static bool version_will_do(void)
{
    unsigned major = 0, minor = 0;
    library.version(&major, &minor);
    return major == 2 && minor >= 1;
}

const char *engine_load(const char *path)
{
    static bool loaded;
    if (loaded)
        return NULL;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return dlerror();
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *found = dlsym(handle, functions[i].name);
        if (!found)
            return dlerror();
        *(void **)functions[i].function = found;
    }
    if (!version_will_do())
        return "it is not of version 2, from 2.1 on";
    loaded = true;
    return NULL;
}

const char *engine_explain(int error)
{
    return library.strerror(error);
}

int engine_open(void **engine)
{
    return library.open(ARCH_X86, MODE_32, engine);
}

int engine_close(void *engine)
{
    return library.close(engine);
}

int engine_start(void *engine, uint32_t eip)
{
    return library.start(engine, eip, nowhere, 0, 0);
}

int engine_stop(void *engine)
{
    return library.stop(engine);
}

int engine_read_register(void *engine, int number, uint64_t *value)
{
    *value = 0; /* the engine writes as many bytes as the register has */
    return library.reg_read(engine, number, value);
}

int engine_write_register(void *engine, int number, uint64_t value)
{
    return library.reg_write(engine, number, &value);
}

int engine_read_table(void *engine, int number, uint64_t *base, uint32_t *limit)
{
    struct table table = { 0 };
    int error = library.reg_read(engine, number, &table);
    *base = table.base;
    *limit = table.limit;
    return error;
}

int engine_write_table(void *engine, int number, uint64_t base, uint32_t limit)
{
    struct table table = { .base = base, .limit = limit };
    return library.reg_write(engine, number, &table);
}

int engine_read_memory(void *engine, uint64_t address, void *bytes, uint64_t size)
{
    return library.mem_read(engine, address, bytes, size);
}

int engine_write_memory(void *engine, uint64_t address, const void *bytes, uint64_t size)
{
    return library.mem_write(engine, address, bytes, size);
}

int engine_map_memory(void *engine, uint64_t address, uint64_t size, uint32_t access, void *memory)
{
    return library.mem_map_ptr(engine, address, size, access, memory);
}

int engine_map_window(void *engine, uint64_t address, uint64_t size, void *read, void *write,
                      void *context)
{
    return library.mmio_map(engine, address, size, read, context, write, context);
}

int engine_hook(void *engine, int type, void *function, void *context, int instruction)
{
    size_t hook;
    uint64_t begin = 1, end = 0; /* an end before the beginning: everywhere */
    return library.hook_add(engine, &hook, type, function, context, begin, end, instruction);
}

size_t engine_context_size(void *engine)
{
    return library.context_size(engine);
}

int engine_context_new(void *engine, void **context)
{
    return library.context_alloc(engine, context);
}

int engine_context_save(void *engine, void *context)
{
    return library.context_save(engine, context);
}

int engine_context_restore(void *engine, void *context)
{
    return library.context_restore(engine, context);
}

int engine_context_free(void *context)
{
    return library.context_free(context);
}
