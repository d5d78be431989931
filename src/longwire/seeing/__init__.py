"""The room where operators see: where one message is, and how the numbers of the last day went.

Everything here reads what others keep, when somebody asks; nothing on the way of a message waits for it.
"""
