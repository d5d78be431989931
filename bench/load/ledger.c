#include "ledger.h"

#include <sys/mman.h>

enum { RECORDS_MAX = 1 << 26 };

void ledger_init(struct ledger *l, const struct options *options)
{
    memset(l, 0, sizeof *l);
    l->options = options;
    content_init(&l->content, options->payload_bytes);
    /* Reserved, not used: the kernel gives pages as they are written, and nothing is ever copied mid-run. */
    l->records = mmap(NULL, RECORDS_MAX * sizeof *l->records, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (l->records == MAP_FAILED)
        must_allocate(NULL);
    l->newest = must_allocate(calloc(options->connections, sizeof *l->newest));
}

bool ledger_is_full(const struct ledger *l) { return l->next == RECORDS_MAX; }

uint32_t ledger_next_sender(const struct ledger *l) { return (uint32_t)(l->next % l->options->connections); }

static uint32_t sender_of(const struct ledger *l, uint64_t seq) { return (uint32_t)(seq % l->options->connections); }

static uint32_t receiver_of(const struct ledger *l, uint64_t seq)
{
    return (sender_of(l, seq) + l->options->connections / 2) % l->options->connections;
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
    content_id(&l->content, seq, sent_us, out->id);
    out->ordinal = (uint32_t)(seq / l->options->connections);
    out->to_device = l->options->to_application ? NULL : l->options->device_ids[receiver_of(l, seq)];
    out->to_group = NULL;
    out->payload = content_payload(&l->content, seq, sent_us);
    out->receipt = l->options->receipt;
}

static bool is_decided(const struct ledger *l, unsigned fate)
{
    if (l->options->to_application)
        return fate & (REFUSED | CONFIRMED);
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

uint64_t ledger_deliver(struct ledger *l, uint32_t receiver, const struct incoming *m, uint64_t now)
{
    uint64_t seq = 0;
    enum origin origin = content_origin(&l->content, m->payload, &seq);
    if (origin == ANOTHER_RUN) {
        l->foreign++; /* left over */
        return 0;
    }
    if (origin == NOBODY || seq >= l->next || !(l->records[seq].fate & SENT_OUT) ||
        m->wants_ack != l->options->receipt ||
        !content_is_right(&l->content, seq, l->records[seq].sent_us, m, l->options->device_ids[sender_of(l, seq)])) {
        l->corrupt++;
        return 0;
    }
    struct record *r = &l->records[seq];
    if (receiver != receiver_of(l, seq)) {
        l->misrouted++;
        return 0;
    }
    if (r->fate & DELIVERED) {
        l->duplicates++;
        return 0;
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
    return r->sent_us;
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
        if (!l->options->to_application) {
            losses.lost += !arrived && !refused;
            losses.lost_confirmed += !arrived && confirmed;
        }
        losses.unanswered += l->options->receipt && !confirmed && !refused;
        losses.delivered_though_refused += arrived && refused;
    }
    return losses;
}
