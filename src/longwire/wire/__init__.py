"""The wire: sans-I/O codecs. Bytes in, typed packets out; packets in, bytes out.

Nothing here knows a socket, a loop, a clock or a log.

    bytes ─► sniff (first byte) ─┬─► native.Decoder.feed ──────────────┬─► Received
                                 └─► websocket ─► native or json_text ─┘
"""
