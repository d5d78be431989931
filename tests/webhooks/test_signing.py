"""The signature, held against a vector that was computed by another program (openssl dgst -sha256 -hmac)."""

from longwire.webhooks.signing import sign


def test_the_signature_is_that_of_the_vector() -> None:
    body = b'{"delivery_id":"dlv_1","events":[]}'
    assert sign("whsec_test", 1_764_000_000, body) == (
        "t=1764000000,v1=864b10d4ddd36d0384ffb97cf71175f1b4b40de9916a051f5fa8d39459e66f55"
    )


def test_another_time_another_secret_and_another_body_have_another_signature() -> None:
    first = sign("a", 1, b"x")
    assert len({first, sign("a", 2, b"x"), sign("b", 1, b"x"), sign("a", 1, b"y")}) == 4
