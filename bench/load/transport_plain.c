#include "transport.h"

#include <errno.h>
#include <sys/socket.h>

#include "fleet.h"

const char *const transport_name = "tcp";

void transport_init(void) {}

int transport_handshake(struct conn *c)
{
    (void)c;
    return 1;
}

static ssize_t outcome(ssize_t moved, int want)
{
    if (moved >= 0)
        return moved;
    return errno == EAGAIN || errno == EINTR ? want : IO_FAILED;
}

ssize_t transport_read(struct conn *c, void *into, size_t n)
{
    return outcome(recv(c->fd, into, n, 0), IO_WANT_READ);
}

ssize_t transport_write(struct conn *c, const void *from, size_t n)
{
    return outcome(send(c->fd, from, n, MSG_NOSIGNAL), IO_WANT_WRITE);
}

bool transport_pending(const struct conn *c)
{
    (void)c;
    return false;
}

void transport_release(struct conn *c) { (void)c; }
