/* Counts by a small integer: how connections ended, what SENT said. Printed as a JSON object. */
#ifndef LW_TALLY_H
#define LW_TALLY_H

#include <stdint.h>
#include <stdio.h>

enum { TALLY_KINDS = 48 };

struct tally {
    int kinds;
    struct { int code; uint64_t count; } rows[TALLY_KINDS];
};

static inline void tally_add(struct tally *t, int code)
{
    int i = 0;
    while (i < t->kinds && t->rows[i].code != code)
        i++;
    if (i == TALLY_KINDS) /* more kinds than the protocol has: the last row takes the rest */
        i--;
    else if (i == t->kinds)
        t->rows[t->kinds++].code = code;
    t->rows[i].count++;
}

/* `name` may give a word for a code, or NULL to print the number. */
static inline void tally_print(FILE *out, const struct tally *t, const char *(*name)(int))
{
    fputc('{', out);
    for (int i = 0; i < t->kinds; i++) {
        const char *word = name ? name(t->rows[i].code) : NULL;
        fputs(i ? ", " : "", out);
        if (word)
            fprintf(out, "\"%s\": %llu", word, (unsigned long long)t->rows[i].count);
        else
            fprintf(out, "\"%d\": %llu", t->rows[i].code, (unsigned long long)t->rows[i].count);
    }
    fputc('}', out);
}

#endif
