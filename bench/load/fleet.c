#include "fleet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "transport.h"

enum { EVENTS_A_TURN = 512, READ_BYTES = 256 * 1024 };
enum { NO_PROGRESS_US = 10 * 1000000 };

/* All connections read into the same bytes; only an unfinished frame is kept with its connection. */
static uint8_t scratch[READ_BYTES];

uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

const char *ending_name(int code)
{
    switch (code) {
    case ENDED_EOF: return "ended_without_close";
    case ENDED_SOCKET_ERROR: return "socket_error";
    case ENDED_PROTOCOL_FAULT: return "server_broke_protocol";
    case ENDED_REFUSED: return "handshake_refused";
    case ENDED_TLS: return "tls_failed";
    case ENDED_NO_ANSWER: return "no_answer";
    default: return NULL; /* a close code of the protocol */
    }
}

void fleet_init(struct fleet *f, const struct options *options)
{
    memset(f, 0, sizeof *f);
    f->options = options;
    f->protocol = options->protocol;
    f->size = options->connections;
    f->heartbeat_s = options->heartbeat_s;
    f->conns = must_allocate(calloc(f->size, sizeof *f->conns));
    f->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < f->size; i++)
        f->conns[i] = (struct conn){.fd = -1, .index = i};
    transport_init();
    /* The default slack of 50 µs would stand in every latency of an open loop. */
    prctl(PR_SET_TIMERSLACK, 1);
}

static void want(struct fleet *f, struct conn *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(f->epoll_fd, operation, c->fd, &event) != 0) {
        perror("epoll_ctl");
        exit(1);
    }
    c->waits_for_write = (events & EPOLLOUT) != 0;
}

void fleet_watch(struct fleet *f, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(f->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        f->watched_fd_ready = true; /* a file or /dev/null: there is nothing to wait for */
}

void fleet_touch(struct fleet *f, struct conn *c)
{
    if (c->is_dirty)
        return;
    c->is_dirty = true;
    c->next_dirty = f->dirty;
    f->dirty = c;
}

void fleet_conn_ready(struct fleet *f, struct conn *c)
{
    c->state = CONN_READY;
    f->ready++;
    f->authenticated++;
    histogram_record(&f->connect_latency, now_us() - c->opened_us);
}

void fleet_conn_end(struct fleet *f, struct conn *c, int ending)
{
    if (c->state == CONN_CLOSED)
        return;
    if (c->state == CONN_READY)
        f->ready--;
    else
        f->failed++;
    c->state = CONN_CLOSED;
    tally_add(&f->endings, ending);
    if (c->tls)
        transport_release(c);
    close(c->fd);
    c->fd = -1;
    buffer_free(&c->in);
    buffer_free(&c->out);
}

/* --- opening ---------------------------------------------------------------------------------------------- */

/* ``turn``: how many ports further than its own. */
static void open_at(struct fleet *f, struct conn *c, uint32_t turn)
{
    const struct options *o = f->options;
    int yes = 1;
    struct sockaddr_in source = {.sin_family = AF_INET}, target = {.sin_family = AF_INET};
    uint32_t part = (uint32_t)((uint64_t)c->index * o->port_count / o->connections);

    target.sin_port = htons(o->ports[(part + turn) % o->port_count]);
    c->opened_us = now_us();
    c->state = CONN_CONNECTING;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || inet_pton(AF_INET, o->host, &target.sin_addr) != 1) {
        fprintf(stderr, "lwload: cannot make a socket to %s\n", o->host);
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    /* Several source addresses, for one of them has 28,000 ports; the kernel picks the port at connect, when it
     * knows the target, so that ports are shared between targets. */
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    source.sin_addr.s_addr = htonl(0x7f000100u + 1 + c->index % o->sources);
    if (bind(c->fd, (struct sockaddr *)&source, sizeof source) != 0 ||
        (connect(c->fd, (struct sockaddr *)&target, sizeof target) != 0 && errno != EINPROGRESS)) {
        fleet_conn_end(f, c, ENDED_SOCKET_ERROR);
        return;
    }
    want(f, c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

void fleet_reopen(struct fleet *f, struct conn *c, uint32_t turn)
{
    c->in = c->out = (struct buffer){0};
    memset(&c->websocket, 0, sizeof c->websocket);
    c->tls = NULL;
    c->waits_for_write = false;
    open_at(f, c, turn);
}

uint64_t fleet_open(struct fleet *f)
{
    uint64_t started = now_us(), progress = started;
    uint32_t settled = 0;
    while (f->authenticated + f->failed < f->size) {
        while (f->opened < f->size && f->opened - f->authenticated - f->failed < f->options->connecting)
            open_at(f, &f->conns[f->opened++], 0);
        fleet_poll(f, 100000);
        fleet_flush(f);
        fleet_keep_alive(f);
        if (f->authenticated + f->failed != settled) {
            settled = f->authenticated + f->failed;
            progress = now_us();
        } else if (now_us() - progress > NO_PROGRESS_US) {
            for (uint32_t i = 0; i < f->opened; i++)
                if (f->conns[i].state != CONN_READY)
                    fleet_conn_end(f, &f->conns[i], ENDED_NO_ANSWER);
            f->size = f->opened; /* the server is stuck: open no more */
        }
    }
    return now_us() - started;
}

/* TCP is up, or the TLS handshake goes on. */
static void advance_opening(struct fleet *f, struct conn *c)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (c->state == CONN_CONNECTING) {
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error != 0) {
            fleet_conn_end(f, c, ENDED_SOCKET_ERROR);
            return;
        }
        c->state = CONN_SECURING;
    }
    int result = transport_handshake(c);
    if (result == IO_FAILED) {
        fleet_conn_end(f, c, ENDED_TLS);
    } else if (result == 1) {
        c->state = CONN_OPENING;
        want(f, c, EPOLL_CTL_MOD, EPOLLIN);
        f->protocol->hello(f, c);
    } else {
        want(f, c, EPOLL_CTL_MOD, result == IO_WANT_WRITE ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

/* --- reading and writing ---------------------------------------------------------------------------------- */

static void read_some(struct fleet *f, struct conn *c)
{
    size_t kept = buffer_length(&c->in);
    if (kept > 0) {
        memcpy(scratch, c->in.data + c->in.start, kept);
        c->in.start = c->in.end = 0;
    }
    ssize_t n = transport_read(c, scratch + kept, sizeof scratch - kept);
    if (n == 0 || n == IO_FAILED) {
        fleet_conn_end(f, c, n == 0 ? ENDED_EOF : ENDED_SOCKET_ERROR);
        return;
    }
    size_t have = kept + (n > 0 ? (size_t)n : 0);
    int64_t used = f->protocol->feed(f, c, (struct span){scratch, have});
    if (c->state == CONN_CLOSED)
        return;
    if (used < 0 || (used == 0 && have == sizeof scratch)) {
        fleet_conn_end(f, c, ENDED_PROTOCOL_FAULT);
        return;
    }
    buffer_append(&c->in, scratch + used, have - (size_t)used);
}

static void write_some(struct fleet *f, struct conn *c)
{
    while (buffer_length(&c->out) > 0) {
        ssize_t n = transport_write(c, c->out.data + c->out.start, buffer_length(&c->out));
        if (n < 0) {
            if (n == IO_FAILED)
                fleet_conn_end(f, c, ENDED_SOCKET_ERROR);
            else if (!c->waits_for_write)
                want(f, c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        }
        buffer_consume(&c->out, (size_t)n);
    }
    if (c->waits_for_write)
        want(f, c, EPOLL_CTL_MOD, EPOLLIN);
}

void fleet_flush(struct fleet *f)
{
    while (f->dirty) {
        struct conn *c = f->dirty;
        f->dirty = c->next_dirty;
        c->is_dirty = false;
        if (c->state >= CONN_OPENING && c->state != CONN_CLOSED && !c->waits_for_write)
            write_some(f, c);
    }
}

void fleet_poll(struct fleet *f, uint64_t timeout_us)
{
    struct epoll_event events[EVENTS_A_TURN];
    struct timespec wait = {(time_t)(timeout_us / 1000000), (long)(timeout_us % 1000000) * 1000};
    int n = epoll_pwait2(f->epoll_fd, events, EVENTS_A_TURN, &wait, NULL);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c == NULL) {
            f->watched_fd_ready = true;
            continue;
        }
        if (c->state < CONN_OPENING) {
            advance_opening(f, c);
            continue;
        }
        if ((events[i].events & EPOLLOUT) && c->state != CONN_CLOSED)
            write_some(f, c);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            do {
                if (c->state != CONN_CLOSED)
                    read_some(f, c);
            } while (c->state != CONN_CLOSED && transport_pending(c));
    }
}

/* --- keeping alive, ending -------------------------------------------------------------------------------- */

void fleet_keep_alive(struct fleet *f)
{
    if (f->ping_epoch_us == 0)
        f->ping_epoch_us = now_us();
    /* At 0.8 of the interval; the server closes at 1.5. */
    double interval_us = 0.8e6 * f->heartbeat_s;
    uint64_t due = (uint64_t)((double)(now_us() - f->ping_epoch_us) / interval_us * f->size);
    while (f->ping_turns < due) {
        struct conn *c = &f->conns[f->ping_turns++ % f->size];
        if (c->state == CONN_READY) {
            f->protocol->ping(f, c);
            f->pings++;
        }
    }
    fleet_flush(f);
}

void fleet_close_all(struct fleet *f)
{
    for (uint32_t i = 0; i < f->opened; i++) {
        struct conn *c = &f->conns[i];
        if (c->state != CONN_CLOSED) {
            if (c->tls)
                transport_release(c);
            close(c->fd);
            c->state = CONN_CLOSED;
        }
    }
}
