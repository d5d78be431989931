/* Latencies in a log-linear histogram (as HdrHistogram has it): 128 steps for each power of two, so that any
 * value of up to 2^40 µs is known within 0.8 %, recording is O(1), and nothing is ever dropped or averaged.
 */
#ifndef LW_HISTOGRAM_H
#define LW_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

enum { HISTOGRAM_STEP_BITS = 7, HISTOGRAM_SLOTS = (40 - HISTOGRAM_STEP_BITS + 2) << HISTOGRAM_STEP_BITS };

struct histogram {
    uint64_t count, max_us;
    uint64_t slots[HISTOGRAM_SLOTS];
};

static inline unsigned histogram_slot(uint64_t value)
{
    if (value >> HISTOGRAM_STEP_BITS == 0)
        return (unsigned)value;
    if (value >> 40)
        value = ((uint64_t)1 << 40) - 1;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    return (shift << HISTOGRAM_STEP_BITS) + (unsigned)(value >> shift);
}

/* The highest value that falls into `slot`: a percentile is never told too small. */
static inline uint64_t histogram_ceiling(unsigned slot)
{
    unsigned shift = slot >> HISTOGRAM_STEP_BITS;
    if (shift <= 1)
        return slot;
    shift--;
    uint64_t step = slot - (shift << HISTOGRAM_STEP_BITS);
    return ((step + 1) << shift) - 1;
}

static inline void histogram_record(struct histogram *h, uint64_t value_us)
{
    h->slots[histogram_slot(value_us)]++;
    h->count++;
    if (value_us > h->max_us)
        h->max_us = value_us;
}

static inline uint64_t histogram_percentile(const struct histogram *h, double percent)
{
    uint64_t rank = (uint64_t)(percent / 100.0 * (double)h->count + 0.5), seen = 0;
    if (rank == 0)
        rank = 1;
    for (unsigned slot = 0; slot < HISTOGRAM_SLOTS; slot++) {
        seen += h->slots[slot];
        if (seen >= rank) {
            uint64_t ceiling = histogram_ceiling(slot);
            return ceiling < h->max_us ? ceiling : h->max_us;
        }
    }
    return h->max_us;
}

/* `{"count": …, "p50_us": …}`, or null where nothing was recorded. */
static inline void histogram_print(FILE *out, const struct histogram *h)
{
    if (h->count == 0) {
        fputs("null", out);
        return;
    }
    fprintf(out, "{\"count\": %llu, \"p50_us\": %llu, \"p90_us\": %llu, \"p99_us\": %llu, \"p999_us\": %llu, \"max_us\": %llu}",
            (unsigned long long)h->count, (unsigned long long)histogram_percentile(h, 50),
            (unsigned long long)histogram_percentile(h, 90), (unsigned long long)histogram_percentile(h, 99),
            (unsigned long long)histogram_percentile(h, 99.9), (unsigned long long)h->max_us);
}

#endif
