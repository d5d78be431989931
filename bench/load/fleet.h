/* The connections of a run, and the one event loop that serves them all.
 *
 * A work turns the loop itself:   fleet_poll (read, decode, call the work) → the work queues what it sends →
 * fleet_flush (one write for each connection that has something to say). So whatever one turn brings for a
 * connection leaves in one system call, and nothing ever blocks.
 */
#ifndef LW_FLEET_H
#define LW_FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "content.h"
#include "histogram.h"
#include "options.h"
#include "protocol.h"
#include "tally.h"

enum conn_state { CONN_NEW, CONN_CONNECTING, CONN_SECURING, CONN_OPENING, CONN_READY, CONN_CLOSED };

struct conn {
    int fd;
    uint32_t index; /* which device it is */
    enum conn_state state;
    bool is_dirty, waits_for_write;
    uint64_t opened_us;
    struct buffer in;  /* bytes of a frame that is not whole yet */
    struct buffer out; /* what the socket has not taken yet */
    struct conn *next_dirty;
    void *tls;
    union {
        struct { bool upgraded; struct buffer inner; } websocket;
        struct { uint32_t last_ordinal; } mqtt;
    };
};

/* How a connection ended, besides the close codes of the protocol. */
enum ending { ENDED_EOF = 1, ENDED_SOCKET_ERROR, ENDED_PROTOCOL_FAULT, ENDED_REFUSED, ENDED_TLS, ENDED_NO_ANSWER };
const char *ending_name(int code);

/* What a work wants to hear; each may be NULL. */
struct listener {
    void (*message)(struct fleet *f, struct conn *c, const struct incoming *m);
    void (*receipt)(struct fleet *f, struct conn *c, uint32_t ordinal, int status);
    void (*answer)(struct fleet *f, struct conn *c, int status, struct span body); /* HTTP only */
};

struct fleet {
    const struct options *options;
    const struct protocol *protocol;
    struct listener listener;
    struct conn *conns;
    struct conn *dirty;
    int epoll_fd;
    uint32_t size, opened;
    uint32_t authenticated, failed; /* how the opened ones fared, once and for all */
    uint32_t ready;                 /* authenticated and still there */
    bool watched_fd_ready;
    uint32_t heartbeat_s; /* the shortest that the server told any of them */
    uint64_t pings, pongs, ping_turns, ping_epoch_us;
    struct histogram connect_latency;
    struct tally endings;
};

uint64_t now_us(void);

void fleet_init(struct fleet *f, const struct options *options);
/* Opens all connections, at most options->connecting of them on their way at a time; returns when each is ready or
 * has failed. Gives the µs it took. */
uint64_t fleet_open(struct fleet *f);
/* Opens one that has ended once more, at the port that comes ``turn`` behind its own. */
void fleet_reopen(struct fleet *f, struct conn *c, uint32_t turn);
/* Reads what came, waiting up to `timeout_us` for something. */
void fleet_poll(struct fleet *f, uint64_t timeout_us);
void fleet_flush(struct fleet *f);
/* PINGs, spread evenly so that each connection speaks well within its heartbeat. */
void fleet_keep_alive(struct fleet *f);
void fleet_close_all(struct fleet *f);
/* Sets f->watched_fd_ready once `fd` (stdin) has something to read or ends. */
void fleet_watch(struct fleet *f, int fd);

/* For protocols. */
void fleet_touch(struct fleet *f, struct conn *c);                /* c->out has grown */
void fleet_conn_ready(struct fleet *f, struct conn *c);           /* authenticated */
void fleet_conn_end(struct fleet *f, struct conn *c, int ending); /* over; counted under `ending` */

#endif
