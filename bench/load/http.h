#ifndef LW_HTTP_H
#define LW_HTTP_H

#include "buffer.h"

/* One request with a JSON body and a bearer key. Ends the program when path and key do not fit a head of 1 KiB. */
void http_put_post(struct buffer *b, const char *path, const char *key, struct span body);

#endif
