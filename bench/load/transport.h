/* The bytes below the protocol: plain TCP (transport_plain.c) or TLS (transport_tls.c), chosen at link time,
 * so that the plain generator needs nothing but libc.
 */
#ifndef LW_TRANSPORT_H
#define LW_TRANSPORT_H

#include <stdbool.h>
#include <sys/types.h>

struct conn;

enum { IO_WANT_READ = -1, IO_WANT_WRITE = -2, IO_FAILED = -3 };

extern const char *const transport_name;

void transport_init(void);
/* After TCP is up: 1 when bytes may flow, else IO_WANT_READ, IO_WANT_WRITE or IO_FAILED. Called until 1. */
int transport_handshake(struct conn *c);
/* Bytes moved (0 from read: the peer ended the stream), else IO_… */
ssize_t transport_read(struct conn *c, void *into, size_t n);
ssize_t transport_write(struct conn *c, const void *from, size_t n);
/* Whether bytes wait above the socket, where epoll cannot see them. */
bool transport_pending(const struct conn *c);
void transport_release(struct conn *c);

#endif
