"""WebSocket by RFC 6455, sans-I/O, for both ends: the opening handshake and the frames.

``handshake`` turns a request into a ``Request`` or a ``Refusal``; behind it ``frames`` turns bytes into
messages. Neither knows a socket, a loop, a clock or a log. Conformance is shown by the Autobahn suite
(``make interop``); the library ``websockets`` is met at either end in the tests.
"""

from longwire.wire.websocket.frames import Decoder as Decoder
from longwire.wire.websocket.frames import Event as Event
from longwire.wire.websocket.frames import Opcode as Opcode
from longwire.wire.websocket.frames import encode as encode
from longwire.wire.websocket.frames import encode_close as encode_close
from longwire.wire.websocket.frames import is_close_code as is_close_code
from longwire.wire.websocket.frames import parse_close as parse_close
from longwire.wire.websocket.handshake import ClientHandshake as ClientHandshake
from longwire.wire.websocket.handshake import Refusal as Refusal
from longwire.wire.websocket.handshake import Request as Request
from longwire.wire.websocket.handshake import Response as Response
from longwire.wire.websocket.handshake import ServerHandshake as ServerHandshake
from longwire.wire.websocket.handshake import accept_response as accept_response
from longwire.wire.websocket.handshake import client_request as client_request
from longwire.wire.websocket.handshake import new_key as new_key
from longwire.wire.websocket.handshake import refuse_response as refuse_response
