"""The domain's gRPC door: the same service, bodies and limits as the REST door; nothing is decided here."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from client.bodies import AskBody, EventsBody, FeedbackBody, HistoryBody, ItemsBody, WhyBody
from client.service import HomeService
from shared.grpc_door import Door, aside, reply, values
from shared.http import SearchBody
from shared.proto import recommender_pb2 as pb
from shared.proto.recommender_pb2_grpc import HomeServicer, add_HomeServicer_to_server


class HomeCalls(HomeServicer):
    """Names of the calls are those of ``recommender.proto``."""

    def __init__(self, service: HomeService) -> None:
        self.service = service
        # The journal takes one writer at a time, and so does what explains: more threads would wait in them.
        self._writing, self._explaining = ThreadPoolExecutor(1, "writing"), ThreadPoolExecutor(1, "explaining")

    # Some milliseconds; it runs where it arrives, as at the REST door: a thread for each would cost as much again.
    async def Recommend(self, request: Any, context: Any) -> Any:
        body = AskBody.model_validate(values(request))
        return reply(pb.Answer, self.service.recommend(body.who(), body.wish()))

    async def Explain(self, request: Any, context: Any) -> Any:
        body = WhyBody.model_validate(values(request))
        words = body.who(), body.item, body.most, body.parts
        return reply(pb.Explanation, await aside(self._explaining, self.service.explanation, *words))

    async def AddEvents(self, request: Any, context: Any) -> Any:
        found = EventsBody.model_validate(values(request)).found()
        await aside(self._writing, self.service.add_events, found)
        return pb.Kept(kept=len(found))

    async def AddItems(self, request: Any, context: Any) -> Any:
        found = ItemsBody.model_validate(values(request)).found()
        await aside(self._writing, self.service.add_items, found)
        return pb.Kept(kept=len(found))

    async def AddFeedback(self, request: Any, context: Any) -> Any:
        found = FeedbackBody.model_validate(values(request)).found()
        await aside(self._writing, self.service.add_feedback, found)
        return pb.Kept(kept=1)

    async def GetItem(self, request: Any, context: Any) -> Any:
        return reply(pb.Item, self.service.item(request.item))

    async def SearchItems(self, request: Any, context: Any) -> Any:
        body = SearchBody.model_validate(values(request))
        return reply(pb.Items, self.service.search(body.query, body.skip, body.k))

    async def History(self, request: Any, context: Any) -> Any:
        body = HistoryBody.model_validate(values(request))
        return reply(pb.HistoryPage, self.service.page(body.user, body.skip, body.k))

    async def About(self, request: Any, context: Any) -> Any:
        return reply(pb.HomeAbout, self.service.about())


def door(service: HomeService, port: int) -> Door:
    """Of that domain, not yet open."""
    name = pb.DESCRIPTOR.services_by_name["Home"].full_name
    return Door(name, lambda server: add_HomeServicer_to_server(HomeCalls(service), server), port)
