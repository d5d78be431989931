/* What a message must be: its id and payload follow from its number and from when it was sent, so that each delivery
 * can be held against what was sent, byte by byte, without keeping any of it.
 */
#ifndef LW_CONTENT_H
#define LW_CONTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "protocol.h"

struct content {
    uint64_t run_id, wall_offset_ms;
    uint32_t payload_bytes;
    uint8_t *filler;
    uint8_t *payload; /* of the message being written */
};

enum origin { THIS_RUN, ANOTHER_RUN, NOBODY };

void content_init(struct content *c, uint32_t payload_bytes);
/* A UUIDv7, as an SDK would make it: 48 bits of wall clock ms, then 74 bits nobody repeats. */
void content_id(const struct content *c, uint64_t seq, uint64_t sent_us, uint8_t id[16]);
/* May be used until the next call. */
struct span content_payload(struct content *c, uint64_t seq, uint64_t sent_us);
/* Who wrote a payload, as far as it says so itself; its number where it was this run. */
enum origin content_origin(const struct content *c, struct span payload, uint64_t *seq);
/* Whether every byte is as it was sent: id, kind, sender and payload. MQTT has neither id nor sender. */
bool content_is_right(const struct content *c, uint64_t seq, uint64_t sent_us, const struct incoming *m,
                      const char *sender_id);

#endif
