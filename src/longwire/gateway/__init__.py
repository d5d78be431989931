"""A gateway node: holds devices' sessions and moves messages between them, the store and the application.

uplink:    net ─► dispatch (a table) ─► handshake | sending | delivery | requests
downlink:  store's commit, or a local send ─► delivery ─► hub ─► connection.write
"""
