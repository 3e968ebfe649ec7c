"""Words of the generated world: topics common to all domains, styles, and each domain's way of speaking."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One interest that people have in every domain."""

    name: str
    chinese: str
    sections: dict[str, str]  # kind of domain -> what this topic's shelf is called there
    subtopics: tuple[tuple[str, ...], ...]  # four, in the order people grow into them; each a few nouns


def _topic(name: str, chinese: str, shelves: tuple[str, str, str], *subtopics: str) -> Topic:
    sections = dict(zip(("video", "news", "shop"), shelves, strict=True))
    return Topic(name, chinese, sections, tuple(tuple(words.split(", ")) for words in subtopics))


# The order is a ring: whoever is through with a topic's second or fourth step is drawn to one further on.
TOPICS: tuple[Topic, ...] = (
    _topic("cooking", "烹饪", ("Food", "food", "Kitchen"),
           "sourdough bread, baguette, yeast loaf, bread oven", "noodle soup, ramen, broth, dumpling",
           "chef knife, carving blade, cutting board, whetstone",
           "barbecue, smoked brisket, charcoal grill, pitmaster"),
    _topic("space", "太空", ("Science Fiction", "science", "Astronomy"),
           "telescope, stargazing, night sky, constellation", "rocket, launch pad, booster, space capsule",
           "Mars colony, red planet, rover, crater", "black hole, galaxy, nebula, cosmology"),
    _topic("football", "足球", ("Sports Drama", "football", "Football"),
           "goalkeeper, penalty save, goal gloves, clean sheet", "striker, free kick, hat trick, football boots",
           "derby, stadium, terraces, away fans", "coach, tactics board, pressing, transfer window"),
    _topic("gardening", "园艺", ("Nature", "home and garden", "Garden"),
           "tomato seedling, vegetable bed, compost, greenhouse", "rose bush, pruning, flower border, secateurs",
           "bonsai, miniature tree, moss, ceramic pot", "orchard, apple tree, grafting, cider press"),
    _topic("jazz", "爵士", ("Music", "music", "Musical Instruments"),
           "saxophone, reed, bebop solo, alto horn", "piano trio, jazz chords, ballad, upright piano",
           "double bass, walking bassline, bow, groove", "drum kit, cymbal, brushes, swing rhythm"),
    _topic("sailing", "航海", ("Adventure", "travel", "Boating"),
           "dinghy, tiller, mainsail, harbour", "regatta, spinnaker, racing yacht, finish line",
           "ocean crossing, storm, lifeboat, lighthouse", "diving, coral reef, wetsuit, shipwreck"),
    _topic("history", "历史", ("Period Drama", "culture", "History Books"),
           "castle, knight, siege, armour", "Roman legion, gladiator, amphitheatre, aqueduct",
           "pharaoh, pyramid, mummy, papyrus", "samurai, shogun, katana, teahouse"),
    _topic("computing", "计算机", ("Thriller", "technology", "Electronics"),
           "hacker, password, firewall, encryption", "robot, servo motor, robotic arm, automaton",
           "chess engine, neural network, algorithm, chatbot", "vintage computer, floppy disk, pixel game, arcade"),
    _topic("cycling", "自行车", ("Sports", "cycling", "Cycling"),
           "road bike, peloton, mountain stage, derailleur", "mountain bike, singletrack, suspension fork, downhill",
           "bicycle touring, pannier, tent, campsite", "velodrome, track sprint, pursuit, fixed gear"),
    _topic("medicine", "医学", ("Medical Drama", "health", "Health"),
           "sleep, insomnia, pillow, night shift", "heart surgeon, pulse, cardiology, blood pressure",
           "yoga, breathing, meditation, stretching", "vaccine, virus, epidemic, microscope"),
    _topic("fashion", "时尚", ("Romance", "style", "Clothing"),
           "wedding dress, lace veil, bridal gown, bouquet", "tailor, wool suit, necktie, sewing machine",
           "sneaker, streetwear, hoodie, skateboard", "perfume, jasmine scent, fragrance, amber oil"),
    _topic("animals", "动物", ("Family", "environment", "Pet Supplies"),
           "puppy, dog leash, kennel, retriever", "kitten, cat tree, whiskers, catnip",
           "parrot, songbird, birdcage, feather", "horse, saddle, stable, bridle"),
)  # fmt: skip

# Styles are the same in all domains: the first words are common, the last belong to one kind of domain only.
STYLES: tuple[tuple[str, ...], ...] = (
    ("award-winning", "acclaimed", "celebrated"),
    ("handmade", "independent", "small-batch"),
    ("classic", "traditional", "old-school"),
    ("playful", "funny", "colourful"),
    ("budget", "bargain", "low-cost"),
    ("glossy", "overhyped", "flashy"),
)
STYLE_QUALITY = (1.2, 0.6, 0.2, -0.1, -0.7, -1.2)  # known to nobody in the world, and the same everywhere
OWN_STYLES: dict[str, tuple[str, ...]] = {
    "video": ("prize-winning", "arthouse", "black-and-white", "slapstick", "made-for-TV", "blockbuster"),
    "news": ("ground-breaking", "grassroots", "time-honoured", "light-hearted", "cut-price", "sensational"),
    "shop": ("professional-grade", "artisan", "heritage", "novelty", "value-pack", "as-seen-on-TV"),
    "social": ("medal-winning", "self-taught", "veteran", "joking", "thrifty", "influencer"),
}
CHINESE_STYLES = ("获奖", "手工", "经典", "有趣", "平价", "浮华")

TITLES: dict[str, tuple[str, ...]] = {
    "video": (
        "The {style} {noun}", "{noun} of {place}", "A {style} tale of {noun} and {other}",
        "The last {noun}: {style} cut",
        "{place} {noun} story", "Return of the {style} {noun}", "{noun} and {other}", "My {style} {noun} summer",
    ),
    "news": (
        "Why {style} {noun} is drawing crowds in {place}", "{place} argues over {style} {noun}",
        "Five things to know about {style} {noun}", "How {noun} and {other} changed {place}",
        "{style} {noun} plan divides {place}", "Inside the {style} world of {noun}", "{place}: a {noun} revival",
    ),
    "shop": (
        "{brand} {style} {noun} set", "{brand} {noun} and {other} kit", "{style} {noun} by {brand}",
        "{brand} {style} {noun}, pack of {number}", "{brand} {noun} starter box, {style}",
        "{noun} gift, {style}, {brand}",
    ),
    "social": ("{first} {last}",),
}  # fmt: skip
ABOUT = (
    "{style} {noun} enthusiast from {place}; also into {other}", "{noun} every day, {other} at weekends; {style}",
    "posts about {noun} and {other}; {style}, lives in {place}", "{style} {topic} fan: {noun}, {other}",
)  # fmt: skip
CHINESE_TITLES: dict[str, str] = {
    "video": "{style}{topic}电影:{noun}",
    "news": "{place}的{style}{topic}新闻:{noun}",
    "shop": "{style}{topic}用品 {noun} {brand}",
    "social": "{first} {last} 爱好{topic}",
}
PLACES = (
    "Lisbon", "Oslo", "Kyoto", "Nairobi", "Quito", "Leeds", "Porto", "Riga", "Hobart", "Chengdu",
    "Galway", "Turin", "Tampere", "Dakar", "Cusco", "Ghent", "Halifax", "Bergen", "Split", "Hanoi",
)  # fmt: skip
BRANDS = (
    "Alder & Finch", "Brightwell", "Corvane", "Dunmore", "Eastlake", "Fernhill", "Granta", "Holloway",
    "Ironbark", "Juniper", "Kestrel", "Lunaria", "Marlowe", "Northgate", "Oakley Bros", "Pinecrest",
)  # fmt: skip
FIRST_NAMES = (
    "Ada", "Bela", "Carlos", "Dina", "Emeka", "Freya", "Goro", "Hana", "Ivan", "Jun", "Kofi", "Lena",
    "Mina", "Noor", "Otto", "Pia", "Quentin", "Rosa", "Sven", "Tala", "Uma", "Vik", "Wei", "Yara",
)  # fmt: skip
LAST_NAMES = (
    "Abbot", "Brandt", "Costa", "Dube", "Eriksen", "Fontaine", "Garcia", "Hughes", "Ito", "Jansen",
    "Kim", "Lindqvist", "Moreau", "Nakamura", "Okafor", "Petrov", "Quinn", "Rossi", "Silva", "Tanaka",
)  # fmt: skip

COLUMNS: dict[str, tuple[str, ...]] = {  # of the .item file, after item_id and title
    "video": ("genre:token", "year:token"),
    "news": ("category:token",),
    "shop": ("brand:token", "category:token_seq", "price:float"),
    "social": ("about:token_seq",),
}
TEXTS: dict[str, str] = {  # what the encoder reads
    "video": "{title}. {genre}",
    "news": "{title}. {category}",
    "shop": "{title}. {category}",
    "social": "{title}. {about}",
}
WEAK: dict[str, tuple[str, ...]] = {
    "video": ("view", "rate"), "news": ("click",), "shop": ("view", "click"), "social": ("view", "like"),
}  # fmt: skip
STRONG: dict[str, tuple[str, ...]] = {
    "video": ("like", "rate", "save"), "news": ("like", "share", "comment"),
    "shop": ("save", "buy"), "social": ("follow", "befriend"),
}  # fmt: skip
