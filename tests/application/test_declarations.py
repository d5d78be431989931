"""Declaring handlers: what may be declared, what is refused, and how the message names it."""

import functools

import msgspec
import pytest

from longwire.application import Context, DeclarationError, Longwire, NotBound, Session
from longwire.application.handlers import DURABLE_TIMEOUT_S, IN_PLACE_TIMEOUT_S
from longwire.reasons import Status
from longwire.testing.services import MemoryServices, device


class Order(msgspec.Struct):
    number: int


class Plain:
    pass


async def order_created(order: Order, ctx: Context) -> None: ...


async def order_again(order: Order) -> None: ...


def test_the_decorator_returns_the_function_itself() -> None:
    assert Longwire().uplink("order.created")(order_created) is order_created


def test_messages_are_durable_unless_declared_otherwise() -> None:
    app = Longwire()
    app.uplink("order.created")(order_created)
    app.uplink("position", durable=False)(order_again)
    assert app.durable_kinds == {"order.created"}
    assert app.find_in_place("order.created") is None
    in_place = app.find_in_place("position")
    assert in_place is not None
    assert in_place.timeout_s == IN_PLACE_TIMEOUT_S
    durable = app.find_uplink("order.created")
    assert durable is not None
    assert durable.timeout_s == DURABLE_TIMEOUT_S


def test_the_catch_all_takes_only_what_nobody_named() -> None:
    app = Longwire()
    app.uplink("order.created")(order_created)
    app.uplink("*")(order_again)
    named, other = app.find_uplink("order.created"), app.find_uplink("anything")
    assert named is not None
    assert named.function is order_created
    assert other is not None
    assert other.function is order_again
    assert app.durable_kinds == {"order.created"}


def test_a_kind_nobody_declared_has_no_handler_and_goes_to_the_log() -> None:
    app = Longwire()
    assert app.find_uplink("anything") is None
    assert app.find_in_place("anything") is None
    assert app.find_request("anything") is None


@pytest.mark.parametrize("decorator", ["uplink", "request"])
def test_a_second_declaration_is_refused_with_both_functions_named(decorator: str) -> None:
    app = Longwire()
    getattr(app, decorator)("order")(order_created)
    with pytest.raises(DeclarationError, match=r"order_created .*test_declarations.py.* and by .*order_again"):
        getattr(app, decorator)("order")(order_again)


def test_a_second_hook_is_refused_with_both_functions_named() -> None:
    app = Longwire()

    async def first(session: Session) -> None: ...
    async def second(session: Session) -> None: ...

    app.on_connect(first)
    with pytest.raises(DeclarationError, match=r"first .* and by .*second"):
        app.on_connect(second)


@pytest.mark.parametrize("annotation", [Plain, dict[str, Plain], list[Plain], Plain | int, "Missing"])
def test_an_annotation_that_cannot_be_decoded_is_named_with_its_function(annotation: object) -> None:
    async def taking(payload) -> None: ...  # type: ignore[no-untyped-def]

    taking.__annotations__["payload"] = annotation
    with pytest.raises(DeclarationError, match=r"taking.*(Plain|Missing)"):
        Longwire().uplink("x")(taking)


def test_a_parameter_without_annotation_is_refused() -> None:
    async def taking(payload) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(DeclarationError, match="'payload' has no annotation"):
        Longwire().uplink("x")(taking)


def test_annotations_as_text_are_found_in_the_module_of_the_function() -> None:
    async def taking(order: "Order", ctx: "Context") -> None: ...

    app = Longwire()
    app.uplink("x")(taking)
    handler = app.find_uplink("x")
    assert handler is not None
    assert handler.decode is not None
    assert handler.decode(b'{"number": 3}') == Order(3)
    assert handler.takes_context


def test_functions_that_cannot_be_handlers_are_refused() -> None:
    async def three(payload: bytes, ctx: Context, more: int) -> None: ...
    async def keyword(payload: bytes, *, more: int) -> None: ...
    async def stream(payload: bytes):  # type: ignore[no-untyped-def]
        yield payload

    for function in (three, keyword, stream):
        with pytest.raises(DeclarationError, match=function.__name__):
            Longwire().uplink("x")(function)


def test_a_decorator_without_its_name_is_refused_at_once() -> None:
    with pytest.raises(DeclarationError, match=r"@app.uplink\('...'\)"):
        Longwire().uplink(order_created)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match=r"@app.request\('...'\)"):
        Longwire().request(order_created)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["", "k" * 65])
def test_a_kind_that_no_device_can_send_is_refused(kind: str) -> None:
    with pytest.raises(DeclarationError, match="1 to 64"):
        Longwire().uplink(kind)(order_created)


@pytest.mark.parametrize("timeout_s", [0, -1, 1e9, float("nan")])
def test_a_budget_that_is_none_is_refused(timeout_s: float) -> None:
    with pytest.raises(DeclarationError, match="timeout_s"):
        Longwire().uplink("x", timeout_s=timeout_s)(order_created)


def test_methods_partials_and_objects_may_be_handlers() -> None:
    class Shop:
        async def take(self, order: Order) -> None: ...
        async def __call__(self, order: Order, ctx: Context) -> None: ...

    async def with_more(prefix: str, order: Order) -> None: ...

    app = Longwire()
    app.uplink("method")(Shop().take)
    app.uplink("object")(Shop())
    app.uplink("partial")(functools.partial(with_more, "a"))
    for kind in ("method", "object", "partial"):
        handler = app.find_uplink(kind)
        assert handler is not None
        assert handler.is_async
        assert handler.decode is not None
        assert handler.takes_context is (kind == "object")


def test_a_hook_with_the_wrong_number_of_arguments_is_refused() -> None:
    async def nothing() -> None: ...
    async def two(sender: Session, to: str) -> bool:
        return True

    with pytest.raises(DeclarationError, match="nothing"):
        Longwire().authenticate(nothing)
    with pytest.raises(DeclarationError, match=r"two .*gives 3"):
        Longwire().authorize_send(two)


async def test_an_application_that_nobody_runs_cannot_push() -> None:
    with pytest.raises(NotBound):
        await Longwire().push("device:d-1", "news")


async def test_a_bound_application_pushes_and_looks_up_outside_of_handlers() -> None:
    app = Longwire()
    services = MemoryServices([device("d-1")])
    app.bind(services)
    assert await app.push("device:d-1", "news", {"n": 1}, ttl_s=60) is Status.OK
    assert services.sent[0].payload == b'{"n":1}'
    assert services.sent[0].ttl_s == 60
    assert await app.find_device("d-1") == device("d-1")
    with pytest.raises(RuntimeError, match="already"):
        app.bind(services)
    app.unbind()
    app.unbind()
    with pytest.raises(NotBound):
        await app.push("device:d-1", "news")


async def test_pushes_without_an_id_of_their_own_are_different_messages() -> None:
    app = Longwire()
    services = MemoryServices([device("d-1")])
    app.bind(services)
    assert [await app.push("device:d-1", "news") for _ in range(2)] == [Status.OK, Status.OK]
    mine = bytes(16)
    answers = [await app.push("device:d-1", "news", message_id=mine) for _ in range(2)]
    assert answers == [Status.OK, Status.DUPLICATE]
