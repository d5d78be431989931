/* The floor: what this machine can do when the server does almost nothing.
 *
 * One epoll loop in C that reads real frames, finds the receiver in a hash table and writes a real PUSH (and SENT,
 * where asked for); to a group, which is everybody else, the same PUSH to each. It checks no token, keeps no message,
 * bounds no buffer, and knows no TTL: no server for use, but the same system calls and the same bytes that any relay
 * needs. Writes are gathered for one loop turn, as in the server under test.
 *
 *   usage: epoll_relay PORT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "msgpack.h"

enum { EVENTS_A_TURN = 512, READ_BYTES = 256 * 1024, BUCKETS = 1 << 16, BACKLOG = 4096, HEARTBEAT_S = 60 };

struct peer {
    int fd;
    bool is_dirty, waits_for_write;
    struct buffer in, out;
    char *address; /* `device:ID`, once it said CONNECT */
    size_t address_length;
    struct peer *next_in_bucket, *next_dirty, *next_dead;
};

static int epoll_fd;
static uint32_t next_handle = 1;
static struct peer *buckets[BUCKETS], *dirty, *dead;
static uint8_t scratch[READ_BYTES];
static const char device_prefix[] = "device:", group_prefix[] = "group:";

static uint64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static struct peer **bucket_of(struct span address)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < address.length; i++)
        hash = (hash ^ address.data[i]) * 16777619u;
    return &buckets[(hash ^ hash >> 16) % BUCKETS];
}

static struct span address_of(const struct peer *p) { return (struct span){(uint8_t *)p->address, p->address_length}; }

static struct peer *find(struct span address)
{
    struct peer *p = *bucket_of(address);
    while (p && !span_equals(address_of(p), address))
        p = p->next_in_bucket;
    return p;
}

static void want(struct peer *p, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = p};
    epoll_ctl(epoll_fd, operation, p->fd, &event);
    p->waits_for_write = (events & EPOLLOUT) != 0;
}

static void touch(struct peer *p)
{
    if (p->is_dirty)
        return;
    p->is_dirty = true;
    p->next_dirty = dirty;
    dirty = p;
}

/* The memory goes at the end of the turn: other events of this turn may still name it. */
static void drop(struct peer *p)
{
    if (p->fd < 0)
        return;
    close(p->fd);
    p->fd = -1;
    if (p->address) {
        struct peer **link = bucket_of(address_of(p));
        while (*link != p)
            link = &(*link)->next_in_bucket;
        *link = p->next_in_bucket;
    }
    p->next_dead = dead;
    dead = p;
}

static bool on_connect(struct peer *p, const struct frame *frame, struct unpacker *u)
{
    uint32_t fields = unpack_array(u);
    unpack_bytes(u); /* the token */
    struct span device_id = unpack_bytes(u);
    if (u->bad || fields < 2 || p->address || device_id.length == 0)
        return false;
    p->address_length = sizeof device_prefix - 1 + device_id.length;
    p->address = must_allocate(malloc(p->address_length));
    memcpy(p->address, device_prefix, sizeof device_prefix - 1);
    memcpy(p->address + sizeof device_prefix - 1, device_id.data, device_id.length);
    struct peer **bucket = bucket_of(address_of(p));
    p->next_in_bucket = *bucket;
    *bucket = p;

    size_t mark = frame_begin(&p->out, 0, CMD_CONNECTED, frame->correlation);
    pack_array(&p->out, 7);
    pack_str(&p->out, span_of("s"));
    pack_uint(&p->out, HEARTBEAT_S);
    pack_str(&p->out, span_of("epoll"));
    pack_uint(&p->out, wall_ms());
    pack_uint(&p->out, 0);
    pack_uint(&p->out, FRAME_MAX_BODY);
    pack_uint(&p->out, 86400);
    frame_end(&p->out, mark);
    touch(p);
    return true;
}

static void push_to_all(struct peer *sender, struct span id, struct span to, struct span kind, struct span payload)
{
    static struct buffer once;
    once.start = once.end = 0;
    size_t mark = frame_begin(&once, 0, CMD_PUSH, next_handle);
    next_handle = next_handle == UINT32_MAX ? 1 : next_handle + 1;
    pack_array(&once, 7);
    pack_bin(&once, id);
    pack_str(&once, kind);
    pack_str(&once, address_of(sender));
    pack_bin(&once, payload);
    pack_uint(&once, wall_ms());
    pack_str(&once, span_of(""));
    pack_str(&once, to);
    frame_end(&once, mark);
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct peer *p = buckets[i]; p; p = p->next_in_bucket)
            if (p != sender) {
                buffer_append(&p->out, once.data + once.start, buffer_length(&once));
                touch(p);
            }
}

static bool on_send(struct peer *p, const struct frame *frame, struct unpacker *u)
{
    uint32_t fields = unpack_array(u);
    struct span id = unpack_bytes(u), to = unpack_bytes(u), kind = unpack_bytes(u), payload = unpack_bytes(u);
    if (u->bad || fields < 4 || id.length != 16 || p->address == NULL)
        return false;
    if (to.length >= sizeof group_prefix - 1 && memcmp(to.data, group_prefix, sizeof group_prefix - 1) == 0) {
        push_to_all(p, id, to, kind, payload);
        return true;
    }
    struct peer *receiver = find(to);
    if (receiver) {
        struct buffer *b = &receiver->out;
        size_t mark = frame_begin(b, frame->flags & FLAG_ACK, CMD_PUSH, next_handle);
        next_handle = next_handle == UINT32_MAX ? 1 : next_handle + 1;
        pack_array(b, 5);
        pack_bin(b, id);
        pack_str(b, kind);
        pack_str(b, address_of(p));
        pack_bin(b, payload);
        pack_uint(b, wall_ms());
        frame_end(b, mark);
        touch(receiver);
    }
    if (frame->flags & FLAG_ACK) {
        size_t mark = frame_begin(&p->out, 0, CMD_SENT, frame->correlation);
        pack_array(&p->out, 1);
        pack_uint(&p->out, receiver ? 0 : 19);
        frame_end(&p->out, mark);
        touch(p);
    }
    return true;
}

static bool dispatch(struct peer *p, const struct frame *frame)
{
    struct unpacker u = {frame->body.data, frame->body.data + frame->body.length, false};
    switch (frame->command) {
    case CMD_CONNECT: return on_connect(p, frame, &u);
    case CMD_SEND: return on_send(p, frame, &u);
    case CMD_PING:
        frame_empty(&p->out, CMD_PONG, frame->correlation);
        touch(p);
        return true;
    case CMD_ACK: case CMD_PONG: return true;
    default: return false;
    }
}

static void read_some(struct peer *p)
{
    size_t kept = buffer_length(&p->in), used = 0;
    if (kept > 0)
        memcpy(scratch, p->in.data + p->in.start, kept);
    ssize_t n = recv(p->fd, scratch + kept, sizeof scratch - kept, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(p);
        return;
    }
    size_t have = kept + (size_t)n;
    for (;;) {
        struct frame frame;
        int64_t size = frame_parse((struct span){scratch + used, have - used}, &frame);
        if (size == 0)
            break;
        if (size < 0 || !dispatch(p, &frame)) {
            drop(p);
            return;
        }
        used += (size_t)size;
    }
    p->in.start = p->in.end = 0;
    buffer_append(&p->in, scratch + used, have - used);
}

static void write_some(struct peer *p)
{
    while (buffer_length(&p->out) > 0) {
        ssize_t n = send(p->fd, p->out.data + p->out.start, buffer_length(&p->out), MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR)
                drop(p);
            else if (!p->waits_for_write)
                want(p, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        }
        buffer_consume(&p->out, (size_t)n);
    }
    if (p->waits_for_write)
        want(p, EPOLL_CTL_MOD, EPOLLIN);
    buffer_free(&p->out); /* an idle connection keeps no buffer, here as in the server under test */
}

static void accept_all(int listener)
{
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct peer *p = must_allocate(calloc(1, sizeof *p));
        p->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        want(p, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void end_turn(void)
{
    while (dirty) {
        struct peer *p = dirty;
        dirty = p->next_dirty;
        p->is_dirty = false;
        if (p->fd >= 0 && !p->waits_for_write)
            write_some(p);
    }
    while (dead) {
        struct peer *p = dead;
        dead = p->next_dead;
        buffer_free(&p->in);
        buffer_free(&p->out);
        free(p->address);
        free(p);
    }
}

static int listen_on(uint16_t port)
{
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0) {
        perror("epoll_relay");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_A_TURN], on_listener = {.events = EPOLLIN, .data.ptr = NULL};
    struct rlimit files;
    int port = argc == 2 ? atoi(argv[1]) : 0;
    if (port < 1 || port > 65535) {
        fputs("usage: epoll_relay PORT\n", stderr);
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on((uint16_t)port);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &on_listener);

    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS_A_TURN, -1);
        for (int i = 0; i < n; i++) {
            struct peer *p = events[i].data.ptr;
            if (p == NULL) {
                accept_all(listener);
                continue;
            }
            if (p->fd >= 0 && (events[i].events & EPOLLOUT))
                write_some(p);
            if (p->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                read_some(p);
        }
        end_turn();
    }
}
