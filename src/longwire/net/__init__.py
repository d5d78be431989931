"""The shells between the loop and the codecs: listeners, connections, and the wheel that times them.

    listener ─► sniffer (first byte) ─► native | websocket connection ─► Receiver (the gateway)

A connection is a byte pipe that speaks one protocol; what its packets mean is the receiver's affair.
"""
