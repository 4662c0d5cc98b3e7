"""The table of claims in the README lists what the toys claim, and nothing else."""

from pipeline.toy import stage
from scripts.claims_table import BEGIN, END, README


def test_every_claim_is_in_the_table() -> None:
    rows = README.read_text().split(BEGIN)[1].split(END)[0].splitlines()[2:]
    claims = [(name, claim) for name in stage.TOYS for claim in stage.claims(name)]
    assert len(rows) == len(claims)
    for row, (name, claim) in zip(rows, claims, strict=True):
        assert row.startswith(f"| {name} | {claim.says.replace('|', chr(92) + '|')}")
        assert claim.source in row
