/* One table of functions for each protocol; the works know nothing else of it.
 *
 *   work ── send, ack, ping ──► protocol ── bytes into conn->out ──► fleet_flush
 *   work ◄─ ready, message, receipt, closed ── protocol ◄── feed(bytes) ── fleet_poll
 */
#ifndef LW_PROTOCOL_H
#define LW_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"

struct fleet;
struct conn;

/* A message on its way out. A group is a topic in MQTT. `ordinal` counts the sender's messages from 0 and comes back
 * with the receipt. */
struct outgoing {
    uint8_t id[16];
    uint32_t ordinal;
    const char *to_device, *to_group; /* one of them; the other is NULL */
    struct span payload;
    bool receipt;
};

/* A message that came. A protocol that carries no id or sender (MQTT) leaves those spans empty. `to` is what the
 * message was addressed to, where that is not the receiver itself. */
struct incoming {
    struct span id, kind, sender, payload, to;
    uint32_t handle;
    bool wants_ack;
};

struct protocol {
    const char *name;
    /* The transport is up: queue the first bytes. */
    void (*hello)(struct fleet *f, struct conn *c);
    /* Bytes understood, or -1 when the server broke the protocol. The rest is offered again with more. */
    int64_t (*feed)(struct fleet *f, struct conn *c, struct span bytes);
    void (*send)(struct fleet *f, struct conn *c, const struct outgoing *message);
    void (*ack)(struct fleet *f, struct conn *c, uint32_t handle);
    void (*ping)(struct fleet *f, struct conn *c);
    void (*pong)(struct fleet *f, struct conn *c, uint32_t correlation);
};

extern const struct protocol protocol_native, protocol_websocket, protocol_mqtt, protocol_http;

/* The kind of every message the generator sends; received ones are held against it. */
#define MESSAGE_KIND "bench"

#endif
