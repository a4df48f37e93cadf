#include "kvm.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

int kvm_ioctl(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, request, argument);
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long argument)
{
    return ioctl(fd, request, argument);
}

int kvm_open(const char *path)
{
    return open(path, O_RDWR | O_CLOEXEC);
}

int kvm_close(int fd)
{
    return close(fd);
}

struct kvm_run *kvm_map_run(int vcpu_fd, size_t size)
{
    void *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    return run == MAP_FAILED ? NULL : run;
}

void kvm_unmap_run(struct kvm_run *run, size_t size)
{
    munmap(run, size);
}

void *memory_map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int memory_unmap(void *memory, size_t size)
{
    return munmap(memory, size);
}
