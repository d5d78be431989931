/* post: callers of an HTTP API, each on a connection that it keeps, each with one call at a time.
 *
 * The bodies come from a file, one a line, and are taken in turn. What is asked for is counted in the answers
 * themselves (--count TEXT: how often it stands in them), so that a call which answers 2xx and did nothing is seen.
 */
#include "cpu_time.h"
#include "fleet.h"
#include "http.h"
#include "works.h"

enum { IDLE_TURN_US = 50000 };

static struct {
    struct span *bodies;
    size_t count, next;
    uint64_t *asked_us;
    uint32_t open;
    uint64_t from_us, to_us;
    uint64_t sent, answers, answers_in_time, counted, counted_in_time;
    struct histogram latency;
    struct tally statuses;
    char first_refusal[512];
} post;

static void load_bodies(const char *path)
{
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, "lwload: cannot read the bodies in %s\n", path ? path : "(--bodies is needed)");
        exit(2);
    }
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, file)) > 0) {
        if (line[length - 1] == '\n')
            length--;
        post.bodies = must_allocate(realloc(post.bodies, (post.count + 1) * sizeof *post.bodies));
        /* The line is ours to keep; getline makes another. */
        post.bodies[post.count++] = (struct span){(uint8_t *)line, (size_t)length};
        line = NULL;
        room = 0;
    }
    free(line);
    fclose(file);
    if (post.count == 0) {
        fprintf(stderr, "lwload: there is no body in %s\n", path);
        exit(2);
    }
}

static void call(struct fleet *f, struct conn *c)
{
    const struct options *o = f->options;
    http_put_post(&c->out, o->path, o->key, post.bodies[post.next++ % post.count]);
    post.asked_us[c->index] = now_us();
    post.sent++;
    post.open++;
    fleet_touch(f, c);
}

static uint64_t occurrences(struct span text, const char *word)
{
    uint64_t n = 0;
    size_t length = strlen(word);
    const uint8_t *at = text.data, *end = text.data + text.length;
    while ((at = memmem(at, (size_t)(end - at), word, length)) != NULL) {
        n++;
        at += length;
    }
    return n;
}

/* As a JSON string can hold it. */
static void keep_refusal(struct span body)
{
    for (size_t i = 0; i < body.length && i < sizeof post.first_refusal - 1; i++) {
        char c = (char)body.data[i];
        post.first_refusal[i] = c < ' ' || c > '~' || c == '"' || c == '\\' ? '\'' : c;
    }
}

static void on_answer(struct fleet *f, struct conn *c, int status, struct span body)
{
    uint64_t now = now_us(), asked_us = post.asked_us[c->index];
    bool is_in_time = now >= post.from_us && now < post.to_us, is_good = status >= 200 && status < 300;
    uint64_t counted = is_good ? f->options->count ? occurrences(body, f->options->count) : 1 : 0;
    post.answers++;
    post.open--;
    post.answers_in_time += is_in_time && is_good;
    post.counted += counted;
    post.counted_in_time += is_in_time ? counted : 0;
    tally_add(&post.statuses, status);
    if (!is_good && post.first_refusal[0] == '\0')
        keep_refusal(body);
    if (asked_us >= post.from_us && asked_us < post.to_us)
        histogram_record(&post.latency, now - asked_us);
    if (now < post.to_us)
        call(f, c);
}

static void run_until(struct fleet *f, uint64_t end_us, bool is_draining)
{
    while (now_us() < end_us && !(is_draining && post.open == 0) && f->ready > 0) {
        fleet_flush(f);
        fleet_poll(f, IDLE_TURN_US);
    }
}

int work_post(struct fleet *f)
{
    const struct options *o = f->options;
    if (o->path == NULL || o->key == NULL) {
        fputs("lwload: post needs --path and --key\n", stderr);
        return 2;
    }
    load_bodies(o->bodies);
    f->listener.answer = on_answer;
    post.asked_us = must_allocate(calloc(o->connections, sizeof *post.asked_us));
    fleet_open(f);
    post.from_us = now_us() + (uint64_t)(o->warmup_s * 1e6);
    post.to_us = post.from_us + (uint64_t)(o->seconds * 1e6);
    for (uint32_t i = 0; i < f->size; i++)
        if (f->conns[i].state == CONN_READY)
            call(f, &f->conns[i]);

    run_until(f, post.from_us, false);
    uint64_t server_us = o->server_pid ? cpu_time_us(o->server_pid) : 0;
    run_until(f, post.to_us, false);
    server_us = o->server_pid ? cpu_time_us(o->server_pid) - server_us : 0;
    run_until(f, now_us() + (uint64_t)(o->drain_s * 1e6), true);

    double counted = post.counted_in_time ? (double)post.counted_in_time : 1;
    printf("{\"work\": \"post\", \"callers\": %u, \"connected\": %u, \"measured_s\": %.3f, \"calls_per_s\": %.1f, "
           "\"rate_per_s\": %.1f, \"sent\": %llu, \"answers\": %llu, \"unanswered\": %llu, \"counted\": %llu",
           o->connections, f->ready, o->seconds, (double)post.answers_in_time / o->seconds,
           (double)post.counted_in_time / o->seconds, (unsigned long long)post.sent, (unsigned long long)post.answers,
           (unsigned long long)(post.sent - post.answers), (unsigned long long)post.counted);
    if (o->server_pid)
        printf(", \"server_cpu_us_per_message\": %.2f", (double)server_us / counted);
    fputs(", \"latency\": ", stdout);
    histogram_print(stdout, &post.latency);
    fputs(", \"statuses\": ", stdout);
    tally_print(stdout, &post.statuses, NULL);
    printf(", \"first_refusal\": \"%s\", \"failed_connects\": %u, \"closes\": ", post.first_refusal, f->failed);
    tally_print(stdout, &f->endings, ending_name);
    puts("}");
    fleet_close_all(f);
    return 0;
}
