"""The signature of a delivery: who has the secret can tell that Longwire sent these bytes, and when.

Longwire-Signature: t=1764000000,v1=hex(HMAC-SHA256(secret, "1764000000." + body))
"""

import hmac

SIGNATURE_HEADER = "Longwire-Signature"
DELIVERY_HEADER = "Longwire-Delivery"


def sign(secret: str, at_s: int, body: bytes) -> str:
    """The header's value. A receiver refuses a time that is minutes off, so that nobody can send the bytes again."""
    digest = hmac.digest(secret.encode(), b"%d." % at_s + body, "sha256")
    return f"t={at_s},v1={digest.hex()}"
