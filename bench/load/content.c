#include "content.h"

#include <sys/random.h>
#include <time.h>

#include "fleet.h"

enum { STAMP_BYTES = 24, FILLER_PERIOD = 256 };

static uint64_t mix(uint64_t x) /* splitmix64's finalizer: one to one */
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

void content_init(struct content *c, uint32_t payload_bytes)
{
    struct timespec wall;
    size_t filler = payload_bytes + FILLER_PERIOD;

    *c = (struct content){.payload_bytes = payload_bytes};
    if (getrandom(&c->run_id, sizeof c->run_id, 0) != sizeof c->run_id)
        exit(1);
    clock_gettime(CLOCK_REALTIME, &wall);
    c->wall_offset_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000 - now_us() / 1000;
    c->payload = must_allocate(malloc(payload_bytes));
    c->filler = must_allocate(malloc(filler));
    for (size_t i = 0; i < filler; i++)
        c->filler[i] = (uint8_t)mix(c->run_id + i);
}

void content_id(const struct content *c, uint64_t seq, uint64_t sent_us, uint8_t id[16])
{
    write_be(id, c->wall_offset_ms + sent_us / 1000, 6);
    write_be(id + 6, 0x7000 | (seq & 0x0fff), 2);
    write_be(id + 8, (mix(c->run_id + seq) >> 2) | (uint64_t)1 << 63, 8);
}

static void stamp_of(const struct content *c, uint64_t seq, uint64_t sent_us, uint8_t stamp[STAMP_BYTES])
{
    uint64_t words[3] = {c->run_id, seq, sent_us};
    _Static_assert(sizeof words == STAMP_BYTES, "the stamp");
    memcpy(stamp, words, STAMP_BYTES);
}

struct span content_payload(struct content *c, uint64_t seq, uint64_t sent_us)
{
    stamp_of(c, seq, sent_us, c->payload);
    memcpy(c->payload + STAMP_BYTES, c->filler + seq % FILLER_PERIOD, c->payload_bytes - STAMP_BYTES);
    return (struct span){c->payload, c->payload_bytes};
}

enum origin content_origin(const struct content *c, struct span payload, uint64_t *seq)
{
    uint64_t words[2];
    if (payload.length < STAMP_BYTES)
        return NOBODY;
    memcpy(words, payload.data, sizeof words);
    *seq = words[1];
    return words[0] == c->run_id ? THIS_RUN : ANOTHER_RUN;
}

static bool has_payload(const struct content *c, uint64_t seq, uint64_t sent_us, struct span payload)
{
    uint8_t stamp[STAMP_BYTES];
    stamp_of(c, seq, sent_us, stamp);
    return payload.length == c->payload_bytes && memcmp(payload.data, stamp, STAMP_BYTES) == 0 &&
           memcmp(payload.data + STAMP_BYTES, c->filler + seq % FILLER_PERIOD, c->payload_bytes - STAMP_BYTES) == 0;
}

bool content_is_right(const struct content *c, uint64_t seq, uint64_t sent_us, const struct incoming *m,
                      const char *sender_id)
{
    static const char prefix[] = "device:";
    const size_t prefix_length = sizeof prefix - 1;
    uint8_t id[16];
    if (!has_payload(c, seq, sent_us, m->payload))
        return false;
    if (m->id.data == NULL)
        return true;
    content_id(c, seq, sent_us, id);
    return span_equals(m->id, (struct span){id, sizeof id}) && span_equals(m->kind, span_of(MESSAGE_KIND)) &&
           m->sender.length > prefix_length && memcmp(m->sender.data, prefix, prefix_length) == 0 &&
           span_equals((struct span){m->sender.data + prefix_length, m->sender.length - prefix_length},
                       span_of(sender_id));
}
