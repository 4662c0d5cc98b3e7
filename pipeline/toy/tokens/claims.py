"""What the sources say of this toy."""

from pipeline.toy.findings import Claim

CLAIMS: tuple[Claim, ...] = ()
