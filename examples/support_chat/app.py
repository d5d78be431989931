"""A support chat: customers write to the application, which finds them an agent and carries the answers back.

    from customers   chat.say     durable  {"text": "…"}                     → agent gets chat.said
    from agents      agent.ready  durable  empty                             → gets who waits
                     agent.away   durable  empty                             customers go to others
                     agent.reply  durable  {"customer": ID, "text": "…"}     → customer gets chat.answer
    from both        history      request  {"customer": ID, "limit": 50} → {"lines": [...]}

An agent is a device of the user ``support``. Devices cannot say that of themselves: only the API (or an
``authenticate`` hook) sets a device's user. Customers never write to each other or to an agent directly.

Conversations are in memory to keep this short, so all roles must run in one process; a real service keeps them
in its database, under ``Line.id``. Every handler sends before it keeps: when it is run again, what was sent
already is not sent twice (``ctx.push`` knows), and what is kept already is recognised by its id.
"""

from collections import deque
from typing import Annotated

from msgspec import Meta, Struct

from longwire import Context, Longwire, Reject, SendRefused, Session

AGENTS = "support"
"""The user whose devices are agents."""
MAX_LINES = 500
"""Lines kept of a conversation; the oldest go first."""

app = Longwire()

Text = Annotated[str, Meta(min_length=1, max_length=2_000)]


class Say(Struct):
    text: Text


class Reply(Struct):
    customer: str
    text: Text


class HistoryQuery(Struct):
    customer: str = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_LINES)] = 50


class Line(Struct):
    """One thing that was said."""

    id: str
    customer: str
    author: str
    text: str
    at_ms: int


class Conversation:
    def __init__(self) -> None:
        self.agent: str | None = None
        self.lines: deque[Line] = deque(maxlen=MAX_LINES)
        self.unseen: deque[Line] = deque(maxlen=MAX_LINES)
        """What the customer said while nobody was there to read it."""

    def keep(self, line: Line) -> None:
        if all(line.id != known.id for known in self.lines):
            self.lines.append(line)


class Desk:
    """Who talks with whom."""

    def __init__(self) -> None:
        self.conversations: dict[str, Conversation] = {}
        self.on_duty: set[str] = set()

    def conversation(self, customer: str) -> Conversation:
        return self.conversations.setdefault(customer, Conversation())

    def agent_for(self, conversation: Conversation) -> str | None:
        """The conversation's agent, or the one on duty who has the fewest; None where nobody is on duty."""
        if conversation.agent is None and self.on_duty:
            busy = [c.agent for c in self.conversations.values()]
            conversation.agent = min(sorted(self.on_duty), key=busy.count)
        return conversation.agent

    def leave(self, agent: str) -> None:
        """Takes the agent off duty; its customers get another one when they next write."""
        self.on_duty.discard(agent)
        for conversation in self.conversations.values():
            if conversation.agent == agent:
                conversation.agent = None


desk = Desk()


@app.uplink("chat.say")
async def say(message: Say, ctx: Context) -> None:
    conversation = desk.conversation(ctx.device_id)
    line = Line(ctx.message_id.hex(), ctx.device_id, ctx.device_id, message.text, ctx.sent_at_ms)
    if not await hand_over(conversation, line, ctx):
        await ctx.reply("chat.queued", {"text": "All agents are away; you are heard and will be answered."})
        if line not in conversation.unseen:
            conversation.unseen.append(line)
    conversation.keep(line)


@app.uplink("agent.ready")
async def ready(ctx: Context) -> None:
    await need_agent(ctx)
    desk.on_duty.add(ctx.device_id)
    for conversation in list(desk.conversations.values()):
        while conversation.unseen and await hand_over(conversation, conversation.unseen[0], ctx):
            conversation.unseen.popleft()


@app.uplink("agent.away")
async def away(ctx: Context) -> None:
    desk.leave(ctx.device_id)


@app.uplink("agent.reply")
async def reply(message: Reply, ctx: Context) -> None:
    await need_agent(ctx)
    conversation = desk.conversations.get(message.customer)
    if conversation is None:
        raise Reject("this customer has not written")
    line = Line(ctx.message_id.hex(), message.customer, ctx.device_id, message.text, ctx.sent_at_ms)
    await ctx.push(f"device:{message.customer}", "chat.answer", line)
    conversation.keep(line)


@app.request("history")
async def history(query: HistoryQuery, ctx: Context) -> dict[str, list[Line]]:
    customer = query.customer or ctx.device_id
    if customer != ctx.device_id:
        await need_agent(ctx)
    conversation = desk.conversations.get(customer)
    return {"lines": list(conversation.lines)[-query.limit :] if conversation is not None else []}


@app.authorize_send
async def through_the_desk_only(sender: Session, to: str, kind: str) -> bool:
    """Asked for messages to devices, users and groups, not for those to the application."""
    return False


async def hand_over(conversation: Conversation, line: Line, ctx: Context) -> bool:
    """Gives the line to the customer's agent; an agent who is no longer registered is replaced."""
    while (agent := desk.agent_for(conversation)) is not None:
        try:
            await ctx.push(f"device:{agent}", "chat.said", line)
        except SendRefused:
            desk.leave(agent)
        else:
            return True
    return False


async def need_agent(ctx: Context) -> None:
    if (await ctx.device()).user != AGENTS:
        raise Reject("only agents may do this")
