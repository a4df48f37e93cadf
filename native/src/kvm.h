/* System calls on /dev/kvm descriptors and the mappings that go with them. */
#ifndef KVMSHIM_KVM_H
#define KVMSHIM_KVM_H

#include <linux/kvm.h>
#include <stddef.h>

/* What ioctl(2) gives; errno is kept for the caller. */
int kvm_ioctl(int fd, unsigned long request, void *argument);
int kvm_ioctl_value(int fd, unsigned long request, unsigned long argument);

int kvm_open(const char *path);
int kvm_close(int fd);

/* The kvm_run structure of a vCPU, of KVM_GET_VCPU_MMAP_SIZE bytes; NULL with errno set. */
struct kvm_run *kvm_map_run(int vcpu_fd, size_t size);
void kvm_unmap_run(struct kvm_run *run, size_t size);

/* Guest memory: anonymous, zero, reserved only as it is touched; NULL with errno set. */
void *memory_map(size_t size);
int memory_unmap(void *memory, size_t size);

#endif
