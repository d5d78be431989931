"""Who may connect and who may call: registration, tokens, API keys, devices, and the choice of a node.

Services over the ports; they know no HTTP, no SQL and no user code but the callables they are given. What they
refuse they raise as ``Refused``, with the code that the HTTP API answers.
"""
