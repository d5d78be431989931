/* As much of HTTP/1.1 as a caller needs that keeps its connection: one request at a time, answers with a
 * Content-Length. The work writes its requests itself (http_put_post) and hears each answer.
 */
#include <ctype.h>
#include <strings.h>

#include "fleet.h"
#include "http.h"

enum { MAX_HEADERS = 16 * 1024 };

void http_put_post(struct buffer *b, const char *path, const char *key, struct span body)
{
    char head[1024];
    int length = snprintf(head, sizeof head,
                          "POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
                          "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                          path, key, body.length);
    if (length < 0 || (size_t)length >= sizeof head) {
        fputs("lwload: --path and --key are too long\n", stderr);
        exit(2);
    }
    buffer_append(b, head, (size_t)length);
    buffer_append(b, body.data, body.length);
}

/* The value of a header, or NULL. `head` ends with an empty line. */
static const char *header_value(const char *head, size_t length, const char *name)
{
    size_t name_length = strlen(name);
    for (const char *line = memchr(head, '\n', length); line != NULL;
         line = memchr(line + 1, '\n', length - (size_t)(line + 1 - head))) {
        size_t left = length - (size_t)(line + 1 - head);
        if (left > name_length && strncasecmp(line + 1, name, name_length) == 0 && line[1 + name_length] == ':')
            return line + 2 + name_length;
        if (left < 2)
            break;
    }
    return NULL;
}

static int64_t feed(struct fleet *f, struct conn *c, struct span bytes)
{
    const char *text = (const char *)bytes.data;
    const char *blank = memmem(text, bytes.length, "\r\n\r\n", 4);
    if (blank == NULL)
        return bytes.length > MAX_HEADERS ? -1 : 0;
    size_t head = (size_t)(blank - text) + 4;
    if (head < 16 || memcmp(text, "HTTP/1.1 ", 9) != 0 || !isdigit((unsigned char)text[9]))
        return -1;
    int status = (int)strtol(text + 9, NULL, 10);
    const char *told = header_value(text, head, "content-length");
    if (told == NULL)
        return -1; /* chunked, or until the end: no answer of ours is */
    size_t length = strtoul(told, NULL, 10);
    if (bytes.length - head < length)
        return 0;
    if (f->listener.answer)
        f->listener.answer(f, c, status, (struct span){bytes.data + head, length});
    return (int64_t)(head + length);
}

static void hello(struct fleet *f, struct conn *c) { fleet_conn_ready(f, c); }

static void nothing(struct fleet *f, struct conn *c) { (void)f, (void)c; }

static void nothing_of(struct fleet *f, struct conn *c, uint32_t number) { (void)f, (void)c, (void)number; }

const struct protocol protocol_http = {"http", hello, feed, NULL, nothing_of, nothing, nothing_of};
