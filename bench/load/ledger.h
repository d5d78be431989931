/* What became of each message of a relay run.
 *
 * Message `seq` goes from device seq % C to that device's peer, so sender, receiver, id and content all follow from
 * the number and the record of when it was sent: each delivery is held against what it must be, exactly.
 */
#ifndef LW_LEDGER_H
#define LW_LEDGER_H

#include "content.h"
#include "histogram.h"
#include "options.h"
#include "protocol.h"
#include "tally.h"

enum fate { SENT_OUT = 1, DELIVERED = 2, CONFIRMED = 4, REFUSED = 8, GIVEN_UP = 16 };

struct record {
    uint64_t sent_us : 56, fate : 8;
};

struct ledger {
    const struct options *options;
    struct content content;
    struct record *records;
    uint64_t next;      /* the number the next message gets */
    uint64_t undecided; /* all before it are finished or given up */
    uint64_t *newest;   /* by receiver: 1 + the highest number it got */
    uint32_t in_flight;

    /* The measured time: arrivals are counted in it, latencies are of messages sent in it. */
    uint64_t from_us, to_us;
    uint64_t delivered_in_time, confirmed_in_time;
    struct histogram delivery_latency, receipt_latency;

    uint64_t sent, delivered, confirmed, unsendable, given_up, late;
    uint64_t duplicates, out_of_order, corrupt, misrouted, foreign, stray_receipts;
    struct tally statuses;
};

void ledger_init(struct ledger *l, const struct options *options);
bool ledger_is_full(const struct ledger *l);
uint32_t ledger_next_sender(const struct ledger *l);
/* The sender's connection is gone: the number is passed over. */
void ledger_skip(struct ledger *l);
/* Enters the next message, sent at `sent_us`; `out` may be used until the next call. */
void ledger_enter(struct ledger *l, uint64_t sent_us, struct outgoing *out);
/* Gives when it was sent, or 0 where it is not the first right delivery of a message. */
uint64_t ledger_deliver(struct ledger *l, uint32_t receiver, const struct incoming *m, uint64_t now);
void ledger_confirm(struct ledger *l, uint32_t sender, uint32_t ordinal, int status, uint64_t now);
/* Gives up what has taken longer than the timeout, so that a lost message cannot stall a closed loop. */
void ledger_give_up(struct ledger *l, uint64_t now);

/* At the end. lost: sent, not refused, never arrived; lost_confirmed: of these, those that SENT had promised. */
struct losses {
    uint64_t lost, lost_confirmed, unanswered, delivered_though_refused;
};
struct losses ledger_losses(const struct ledger *l);

#endif
