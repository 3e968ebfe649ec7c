"""The server's gRPC door: the same service, bodies and limits as the REST door; nothing is decided or kept."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from server.bodies import AskBody, CatalogSearchBody, ItemsBody, WhyBody
from server.http_api import spelled
from server.service import CrossDomain
from shared.grpc_door import Door, aside, reply, values
from shared.http import plain
from shared.proto import recommender_pb2 as pb
from shared.proto.recommender_pb2_grpc import CrossingServicer, add_CrossingServicer_to_server

THREADS = 4  # plain words pass through the encoder, tens of milliseconds each


class CrossingCalls(CrossingServicer):
    """Names of the calls are those of ``recommender.proto``."""

    def __init__(self, service: CrossDomain) -> None:
        self.service = service
        self._pool, self._explaining = ThreadPoolExecutor(THREADS, "crossing"), ThreadPoolExecutor(1, "explaining")

    async def Recommend(self, request: Any, context: Any) -> Any:
        body = AskBody.model_validate(values(request))
        return reply(pb.CrossAnswer, spelled(await aside(self._pool, self.service.recommend, *body.wanted())))

    async def Explain(self, request: Any, context: Any) -> Any:
        body = WhyBody.model_validate(values(request))
        words = body.events(), body.domain, body.item, body.most, body.parts
        found = await aside(self._explaining, self.service.explain, *words)
        return reply(pb.Explanation, {"domain": body.domain, **plain(found)})

    async def AddItems(self, request: Any, context: Any) -> Any:
        body = ItemsBody.model_validate(values(request))
        await aside(self._pool, self.service.add_items, body.domain, body.found())
        return pb.Kept(kept=len(body.items))

    async def GetItem(self, request: Any, context: Any) -> Any:
        return reply(pb.Item, await aside(self._pool, self.service.item, request.domain, request.item))

    async def SearchItems(self, request: Any, context: Any) -> Any:
        body = CatalogSearchBody.model_validate(values(request))
        words = body.domain, body.query, body.skip, body.k
        return reply(pb.Items, await aside(self._pool, self.service.search, *words))

    async def About(self, request: Any, context: Any) -> Any:
        return reply(pb.CrossAbout, self.service.about())


def door(service: CrossDomain, port: int) -> Door:
    """Of that server, not yet open."""
    name = pb.DESCRIPTOR.services_by_name["Crossing"].full_name
    return Door(name, lambda server: add_CrossingServicer_to_server(CrossingCalls(service), server), port)
