"""``longwire demo``: a node in a process of its own, and a fleet that puts it to work through the public doors.

command ─► node        `longwire dev` with application.py, in a temporary data folder
        ─► fleet       devices on the SDK: register, connect, leave, come back, get cut off
        ─► phases      what is sent to whom; traffic counts each message's way
        ─► report      one table: what was counted, and whether it adds up
"""
