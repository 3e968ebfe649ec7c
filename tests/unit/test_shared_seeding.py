from shared.seeding import stream, torch_stream


def test_a_place_has_one_stream_and_another_place_another():
    def draw(*path):
        return stream(7, *path).integers(1 << 40)

    assert draw("client", "video", 3) == draw("client", "video", 3)
    assert len({draw("client", "video", 3), draw("client", "video", 4), draw("client", "news", 3), draw("x")}) == 4
    assert stream(7, "a").integers(1 << 40) != stream(8, "a").integers(1 << 40)


def test_torch_follows_the_same_names():
    assert torch_stream(7, "a", 1).initial_seed() == torch_stream(7, "a", 1).initial_seed()
    assert torch_stream(7, "a", 1).initial_seed() != torch_stream(7, "a", 2).initial_seed()
