/* The native protocol's packets, apart from how they travel: bare on TCP, or inside WebSocket messages. */
#ifndef LW_NATIVE_CODEC_H
#define LW_NATIVE_CODEC_H

#include "fleet.h"
#include "protocol.h"

void native_put_connect(struct buffer *b, const char *token, const char *device_id, uint32_t heartbeat_s);
void native_put_send(struct buffer *b, const struct outgoing *m);

/* Understands the whole frames in `bytes`: tells the fleet and its work, answers PING through the fleet's
 * protocol. Gives the bytes used, or -1. */
int64_t native_feed(struct fleet *f, struct conn *c, struct span bytes);

#endif
