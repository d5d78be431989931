#include "ledger.h"

#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "fleet.h"

enum { RECORDS_MAX = 1 << 26, STAMP_BYTES = 24, FILLER_PERIOD = 256 };

static uint64_t mix(uint64_t x) /* splitmix64's finalizer: one to one */
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

void ledger_init(struct ledger *l, const struct options *options)
{
    struct timespec wall;
    size_t filler = options->payload_bytes + FILLER_PERIOD;

    memset(l, 0, sizeof *l);
    l->options = options;
    if (getrandom(&l->run_id, sizeof l->run_id, 0) != sizeof l->run_id)
        exit(1);
    clock_gettime(CLOCK_REALTIME, &wall);
    l->wall_offset_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000 - now_us() / 1000;
    /* Reserved, not used: the kernel gives pages as they are written, and nothing is ever copied mid-run. */
    l->records = mmap(NULL, RECORDS_MAX * sizeof *l->records, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (l->records == MAP_FAILED)
        must_allocate(NULL);
    l->newest = must_allocate(calloc(options->connections, sizeof *l->newest));
    l->payload = must_allocate(malloc(options->payload_bytes));
    l->filler = must_allocate(malloc(filler));
    for (size_t i = 0; i < filler; i++)
        l->filler[i] = (uint8_t)mix(l->run_id + i);
}

bool ledger_is_full(const struct ledger *l) { return l->next == RECORDS_MAX; }

uint32_t ledger_next_sender(const struct ledger *l) { return (uint32_t)(l->next % l->options->connections); }

static uint32_t sender_of(const struct ledger *l, uint64_t seq) { return (uint32_t)(seq % l->options->connections); }

static uint32_t receiver_of(const struct ledger *l, uint64_t seq)
{
    return (sender_of(l, seq) + l->options->connections / 2) % l->options->connections;
}

/* A UUIDv7, as an SDK would make it: 48 bits of wall clock ms, then 74 bits nobody repeats. */
static void message_id(const struct ledger *l, uint64_t seq, uint8_t id[16])
{
    write_be(id, l->wall_offset_ms + l->records[seq].sent_us / 1000, 6);
    write_be(id + 6, 0x7000 | (seq & 0x0fff), 2);
    write_be(id + 8, (mix(l->run_id + seq) >> 2) | (uint64_t)1 << 63, 8);
}

static void fill_payload(struct ledger *l, uint64_t seq)
{
    uint64_t stamp[3] = {l->run_id, seq, l->records[seq].sent_us};
    _Static_assert(sizeof stamp == STAMP_BYTES, "the stamp");
    memcpy(l->payload, stamp, STAMP_BYTES);
    memcpy(l->payload + STAMP_BYTES, l->filler + seq % FILLER_PERIOD, l->options->payload_bytes - STAMP_BYTES);
}

void ledger_skip(struct ledger *l)
{
    l->next++;
    l->unsendable++;
}

void ledger_enter(struct ledger *l, uint64_t sent_us, struct outgoing *out)
{
    uint64_t seq = l->next++;
    l->records[seq] = (struct record){.sent_us = sent_us, .fate = SENT_OUT};
    l->sent++;
    l->in_flight++;
    fill_payload(l, seq);
    message_id(l, seq, out->id);
    out->ordinal = (uint32_t)(seq / l->options->connections);
    out->to_device = l->options->device_ids[receiver_of(l, seq)];
    out->payload = (struct span){l->payload, l->options->payload_bytes};
    out->receipt = l->options->receipt;
}

static bool is_decided(const struct ledger *l, unsigned fate)
{
    if (!l->options->receipt)
        return fate & DELIVERED;
    return (fate & REFUSED) || (fate & (DELIVERED | CONFIRMED)) == (DELIVERED | CONFIRMED);
}

static void add_fate(struct ledger *l, struct record *r, enum fate fate)
{
    bool was_open = !is_decided(l, r->fate) && !(r->fate & GIVEN_UP);
    r->fate |= (uint8_t)fate;
    if (was_open && (fate == GIVEN_UP || is_decided(l, r->fate)))
        l->in_flight--;
}

static bool in_measured_time(const struct ledger *l, uint64_t at_us) { return at_us >= l->from_us && at_us < l->to_us; }

static bool has_right_content(struct ledger *l, uint64_t seq, const struct incoming *m)
{
    uint8_t id[16];
    fill_payload(l, seq);
    if (!span_equals(m->payload, (struct span){l->payload, l->options->payload_bytes}))
        return false;
    if (m->wants_ack != l->options->receipt)
        return false;
    if (m->id.data == NULL) /* MQTT has neither id nor sender */
        return true;
    message_id(l, seq, id);
    static const char prefix[] = "device:";
    const size_t prefix_length = sizeof prefix - 1;
    return span_equals(m->id, (struct span){id, sizeof id}) && span_equals(m->kind, span_of(MESSAGE_KIND)) &&
           m->sender.length > prefix_length && memcmp(m->sender.data, prefix, prefix_length) == 0 &&
           span_equals((struct span){m->sender.data + prefix_length, m->sender.length - prefix_length},
                       span_of(l->options->device_ids[sender_of(l, seq)]));
}

void ledger_deliver(struct ledger *l, uint32_t receiver, const struct incoming *m, uint64_t now)
{
    uint64_t stamp[3];
    if (m->payload.length < STAMP_BYTES) {
        l->corrupt++;
        return;
    }
    memcpy(stamp, m->payload.data, STAMP_BYTES);
    uint64_t seq = stamp[1];
    if (stamp[0] != l->run_id) {
        l->foreign++; /* left over from an earlier run */
        return;
    }
    if (seq >= l->next || !(l->records[seq].fate & SENT_OUT) || !has_right_content(l, seq, m)) {
        l->corrupt++;
        return;
    }
    struct record *r = &l->records[seq];
    if (receiver != receiver_of(l, seq)) {
        l->misrouted++;
        return;
    }
    if (r->fate & DELIVERED) {
        l->duplicates++;
        return;
    }
    if (seq < l->newest[receiver])
        l->out_of_order++;
    else
        l->newest[receiver] = seq + 1;
    if (r->fate & GIVEN_UP)
        l->late++;
    add_fate(l, r, DELIVERED);
    l->delivered++;
    l->delivered_in_time += in_measured_time(l, now);
    if (in_measured_time(l, r->sent_us))
        histogram_record(&l->delivery_latency, now - r->sent_us);
}

void ledger_confirm(struct ledger *l, uint32_t sender, uint32_t ordinal, int status, uint64_t now)
{
    uint64_t seq = (uint64_t)ordinal * l->options->connections + sender;
    struct record *r = &l->records[seq < l->next ? seq : 0];
    if (!l->options->receipt || seq >= l->next || !(r->fate & SENT_OUT) || (r->fate & (CONFIRMED | REFUSED))) {
        l->stray_receipts++;
        return;
    }
    tally_add(&l->statuses, status);
    bool accepted = status <= 1;
    add_fate(l, r, accepted ? CONFIRMED : REFUSED);
    if (!accepted)
        return;
    l->confirmed++;
    l->confirmed_in_time += in_measured_time(l, now);
    if (in_measured_time(l, r->sent_us))
        histogram_record(&l->receipt_latency, now - r->sent_us);
}

void ledger_give_up(struct ledger *l, uint64_t now)
{
    uint64_t timeout_us = (uint64_t)(l->options->timeout_s * 1e6);
    for (; l->undecided < l->next; l->undecided++) {
        struct record *r = &l->records[l->undecided];
        if (!(r->fate & SENT_OUT) || (r->fate & GIVEN_UP) || is_decided(l, r->fate))
            continue;
        if (now < r->sent_us + timeout_us)
            return; /* those behind it were sent later */
        add_fate(l, r, GIVEN_UP);
        l->given_up++;
    }
}

struct losses ledger_losses(const struct ledger *l)
{
    struct losses losses = {0};
    for (uint64_t seq = 0; seq < l->next; seq++) {
        unsigned fate = l->records[seq].fate;
        if (!(fate & SENT_OUT))
            continue;
        bool arrived = fate & DELIVERED, refused = fate & REFUSED, confirmed = fate & CONFIRMED;
        losses.lost += !arrived && !refused;
        losses.lost_confirmed += !arrived && confirmed;
        losses.unanswered += l->options->receipt && !confirmed && !refused;
        losses.delivered_though_refused += arrived && refused;
    }
    return losses;
}
