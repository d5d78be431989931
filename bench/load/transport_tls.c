/* TLS through OpenSSL, for the memory of TLS connections.
 *
 * The certificate is not verified: the servers under test run on loopback with one made a second ago, and the
 * figure of interest is the server's memory.
 */
#include "transport.h"

#include <openssl/ssl.h>
#include <signal.h>

#include "fleet.h"

const char *const transport_name = "tls";

static SSL_CTX *context;

void transport_init(void)
{
    signal(SIGPIPE, SIG_IGN); /* SSL_write has no MSG_NOSIGNAL */
    context = must_allocate(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

static int outcome(const struct conn *c, int result)
{
    switch (SSL_get_error(c->tls, result)) {
    case SSL_ERROR_WANT_READ: return IO_WANT_READ;
    case SSL_ERROR_WANT_WRITE: return IO_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: return IO_FAILED;
    }
}

int transport_handshake(struct conn *c)
{
    if (c->tls == NULL) {
        c->tls = must_allocate(SSL_new(context));
        SSL_set_fd(c->tls, c->fd);
        SSL_set_connect_state(c->tls);
    }
    int result = SSL_do_handshake(c->tls);
    if (result == 1)
        return 1;
    int want = outcome(c, result);
    return want == 0 ? IO_FAILED : want;
}

ssize_t transport_read(struct conn *c, void *into, size_t n)
{
    int result = SSL_read(c->tls, into, (int)n);
    return result > 0 ? result : outcome(c, result);
}

ssize_t transport_write(struct conn *c, const void *from, size_t n)
{
    int result = SSL_write(c->tls, from, (int)n);
    return result > 0 ? result : outcome(c, result);
}

bool transport_pending(const struct conn *c) { return SSL_pending(c->tls) > 0; }

void transport_release(struct conn *c)
{
    SSL_free(c->tls);
    c->tls = NULL;
}
