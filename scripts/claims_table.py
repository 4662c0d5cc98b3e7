"""The table of all claims in pipeline/toy/README.md, from what `unmix toy` found.

python -m scripts.claims_table runs/toy
"""

import argparse
from pathlib import Path

from pipeline.toy.stage import FINDINGS, TOYS
from stores.manifest import read_json

README = Path(__file__).parents[1] / "pipeline" / "toy" / "README.md"
BEGIN, END = "<!-- claims -->\n", "<!-- /claims -->\n"


def table(folder: Path) -> str:
    """Markdown. Raises SystemExit: a toy has no findings there."""
    lines = ["| toy | what the source says | what is found here | verdict |", "|---|---|---|---|"]
    for toy in TOYS:
        path = folder / toy / FINDINGS
        if not path.exists():
            raise SystemExit(f"{path} is not there: `unmix toy {toy}` writes it")
        for finding in read_json(path)["findings"]:
            reported = f" Reported: {finding['reported']}." if finding["reported"] else ""
            checks = "<br>".join(check["text"] for check in finding["checks"])
            cells = [toy, f"{finding['says']}{reported} *{finding['source']}*", checks, finding["verdict"]]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the toys were run, runs/toy")
    folder = parser.parse_args().folder
    before, rest = README.read_text().split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + table(folder) + END + after)


if __name__ == "__main__":
    main()
