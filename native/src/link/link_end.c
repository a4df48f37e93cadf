#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "link/link_inner.h"

void wake(int event_fd)
{
    eventfd_write(event_fd, 1);
}

void end_link(struct link *link, int state, int error_number, const char *format, ...)
{
    if (atomic_exchange(&link->ending, true))
        return;
    link->error_number = error_number;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(link->error, sizeof link->error, format, arguments);
    va_end(arguments);
    atomic_store(&link->state, state);
    wake(link->inbox_fd);
    wake(link->wake_fd);
    control_raise(link->control, CONTROL_LINK);
}
