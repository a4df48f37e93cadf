#define _GNU_SOURCE /* ppoll */
#include "vm/control.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void on_kick(int number)
{
    (void)number; /* its arrival is all that matters: KVM_RUN and poll return EINTR */
}

static int kick_signal(void)
{
    return SIGRTMIN + 1;
}

static void install_kick(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_kick; /* no SA_RESTART: the system call must end */
    sigemptyset(&action.sa_mask);
    sigaction(kick_signal(), &action, NULL);
}

static void close_descriptors(struct control *control)
{
    if (control->stop_fd >= 0)
        close(control->stop_fd);
    if (control->idle_fd >= 0)
        close(control->idle_fd);
    if (control->wake_fd >= 0)
        close(control->wake_fd);
}

struct control *control_new(int vm_fd)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_kick);
    struct control *control = calloc(1, sizeof *control);
    if (!control)
        return NULL;
    control->vm_fd = vm_fd;
    lines_init(&control->lines);
    control->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    control->idle_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    control->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (control->stop_fd < 0 || control->idle_fd < 0 || control->wake_fd < 0) {
        close_descriptors(control);
        free(control);
        return NULL;
    }
    atomic_store(&control->stopped_ns, 0);
    pthread_mutex_init(&control->lock, NULL);
    return control;
}

void control_free(struct control *control)
{
    if (!control)
        return;
    close_descriptors(control);
    pthread_mutex_destroy(&control->lock);
    lines_free(&control->lines);
    free(control);
}

uint64_t control_time_ns(struct control *control)
{
    int64_t stopped = atomic_load_explicit(&control->stopped_ns, memory_order_acquire);
    if (stopped >= 0)
        return (uint64_t)stopped;
    return (uint64_t)(monotonic_ns() - atomic_load(&control->origin_ns));
}

void control_clock_start(struct control *control)
{
    int64_t stopped = atomic_load(&control->stopped_ns);
    if (stopped < 0)
        return;
    atomic_store(&control->origin_ns, monotonic_ns() - stopped);
    atomic_store(&control->stopped_ns, -1);
}

void control_clock_stop(struct control *control)
{
    if (atomic_load(&control->stopped_ns) < 0)
        atomic_store(&control->stopped_ns, (int64_t)control_time_ns(control));
}

void control_clock_set(struct control *control, uint64_t time_ns)
{
    atomic_store(&control->stopped_ns, (int64_t)time_ns);
}

void control_raise(struct control *control, uint32_t reason)
{
    atomic_fetch_or(&control->pending, reason);
    if (reason & (CONTROL_STOP | CONTROL_LINK))
        eventfd_write(control->stop_fd, 1);
    pthread_mutex_lock(&control->lock);
    if (control->run) {
        __atomic_store_n(&control->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        if (!pthread_equal(control->thread, pthread_self()))
            pthread_kill(control->thread, kick_signal());
    }
    pthread_mutex_unlock(&control->lock);
}

void control_clear(struct control *control, uint32_t reasons)
{
    uint32_t left = atomic_fetch_and(&control->pending, ~reasons) & ~reasons;
    eventfd_t drained;
    if (!(left & (CONTROL_STOP | CONTROL_LINK)))
        eventfd_read(control->stop_fd, &drained);
}

uint32_t control_pending(struct control *control)
{
    return atomic_load(&control->pending);
}

void control_notify(struct control *control)
{
    atomic_fetch_add(&control->notifications, 1);
    if (atomic_load(&control->idling))
        eventfd_write(control->idle_fd, 1);
    if (atomic_load(&control->sleeping))
        eventfd_write(control->wake_fd, 1);
}

void control_enter(struct control *control, struct kvm_run *run)
{
    pthread_mutex_lock(&control->lock);
    control->run = run;
    control->thread = pthread_self();
    pthread_mutex_unlock(&control->lock);
}

void control_leave(struct control *control)
{
    pthread_mutex_lock(&control->lock);
    control->run = NULL;
    pthread_mutex_unlock(&control->lock);
}

uint32_t control_notifications(struct control *control)
{
    return atomic_load(&control->notifications);
}

void control_sleep(struct control *control, uint32_t notifications)
{
    struct pollfd descriptors[] = {
        { .fd = control->stop_fd, .events = POLLIN },
        { .fd = control->wake_fd, .events = POLLIN },
    };
    sigset_t kick, before;
    sigemptyset(&kick);
    sigaddset(&kick, kick_signal());
    pthread_sigmask(SIG_BLOCK, &kick, &before); /* one that comes now ends ppoll at once */
    atomic_store(&control->sleeping, true);
    if (!control_pending(control) && atomic_load(&control->notifications) == notifications)
        ppoll(descriptors, 2, NULL, &before);
    atomic_store(&control->sleeping, false);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    eventfd_t drained;
    eventfd_read(control->wake_fd, &drained);
}

static void control_lines_changed(struct control *control)
{
    control_notify(control);
    if (control->lines.userspace_irqchip)
        control_raise(control, CONTROL_LINES);
}

int control_line(struct control *control, unsigned source, uint32_t line, bool level)
{
    int result = lines_drive(&control->lines, control->vm_fd, source, line, level);
    control_lines_changed(control);
    return result;
}

void control_userspace_irqchip(struct control *control)
{
    lines_userspace_irqchip(&control->lines);
}

bool control_lines_pending(struct control *control)
{
    return lines_wait(&control->lines);
}

void control_forget_links(struct control *control)
{
    lines_forget(&control->lines);
}

int control_hold_lines(struct control *control, bool hold)
{
    int result = lines_hold(&control->lines, control->vm_fd, hold);
    control_lines_changed(control);
    return result;
}
