"""Words, and relations between words, as far as source code has them. Fixed lists: nothing is picked by its result.

Of a pair a model has both words as single tokens, or it is left out. A pair counts once: with a leading space (Ġ) where both
words have it, otherwise without. So no word stands in two pairs of a relation by its two tokens.
"""

from collections.abc import Mapping

# Words that are nouns in the text of programs, and whose plural is one: no "call", "return", "use", "set", "change".
NOUNS = """
action address argument array attribute base bit block buffer button byte case channel character child chunk class client
codec column command comment component condition connection constant content context cookie coroutine date day
delimiter dependency descriptor dialog digit directory document element encoding entry error event example exception
expression extension factory feature field file filename flag folder font frame function generator group handler header
host hour image index instance instruction integer interface item key keyword label language level library line list
literal loop machine macro member message method minute module month name namespace node number object operand operation
operator option package page pair parameter parent part password path pattern pixel platform pointer policy pool port
position prefix property protocol query queue record reference region request resource response result row rule script
section sequence server session setting shape signal slice socket space stream string suffix symbol system table tag task
template thread token tool tree tuple type user value variable vector version warning week widget window word worker
wrapper year
""".split()  # noqa: SIM905  a list of words is easier to read so

_IRREGULAR = {"child": "children", "index": "indices"}

_WORDS = """
address alias and bytes call case code create data default dict element end error event exception exit file flag flags
format frame get handle header info item key line list lock map max method mod module name node not only option out parse
path port process python read result return run server set size string test text time type value version warning word write
""".split()  # noqa: SIM905

_RELATIONS = {
    "open and close": "( ) [ ] { } ({ }) ([ ]) (( )) _( _) (' ') (\" \") [' '] [\" \"] {' '} __( __)",
    "opposites": """
        get set open close read write start stop begin end first last min max true false True False input output
        encode decode left right source dest src dst add remove load dump push pop in out on off up down before after
        old new parent child width height row column server client send recv request response head tail enter exit
        pack unpack create delete acquire release high low long short local global next previous valid invalid
        always never above below with without same different success failure pass fail positive negative
        empty full internal external known unknown stdin stdout connect disconnect top bottom yes no
        """,
    "verb and -ing": """
        read reading write writing start starting log logging parse parsing return returning run running set setting
        contain containing exist existing match matching map mapping use using encode encoding call calling
        follow following handle handling miss missing code coding thread threading
        """,
    "verb and -ed": """
        use used close closed implement implemented quote quoted support supported ignore ignored remove removed
        decode decoded return returned update updated base based wrap wrapped select selected name named raise raised
        create created fail failed call called change changed add added encode encoded allow allowed pass passed
        need needed sort sorted cancel cancelled end ended
        """,
    "verb and -s": """
        allow allows call calls contain contains exist exists match matches mean means need needs raise raises
        return returns support supports take takes use uses require requires provide provides
        """,
    "verb and who does it": """
        read reader write writer parse parser compile compiler debug debugger wrap wrapper call caller log logger
        wait waiter handle handler load loader encode encoder serve server own owner fix fixer use user code coder
        """,
}

PLURAL = "singular and plural"


def plural(noun: str) -> str:
    """By the rules of English spelling, and the exceptions of the list."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def relations() -> dict[str, list[tuple[str, str]]]:
    """Name → pairs of words."""
    found = {PLURAL: [(noun, plural(noun)) for noun in NOUNS]}
    for name, text in _RELATIONS.items():
        words = text.split()
        found[name] = list(zip(words[::2], words[1::2], strict=True))
    found["lower and upper case"] = [(word, word.upper()) for word in _WORDS]
    found["lower case and a capital"] = [(word, word.capitalize()) for word in _WORDS]
    return found


def in_vocabulary(pairs: list[tuple[str, str]], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs of tokens that the vocabulary has, one at most of each pair of words."""
    found = []
    for a, b in pairs:
        for space in ("Ġ", ""):
            if space + a in vocabulary and space + b in vocabulary:
                found.append((space + a, space + b))
                break
    return found


def with_space(vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """A word, and the same with a space before it."""
    return [(word, "Ġ" + word) for word in NOUNS if word in vocabulary and "Ġ" + word in vocabulary]
