"""Which documents of a batch stand in one right-padded rectangle of attention."""

from collections.abc import Sequence


def rectangles(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of documents of similar length, the longest of each group first; a group fills (documents, longest) cells."""
    groups: list[list[int]] = []
    for document in sorted(range(len(lengths)), key=lambda document: -lengths[document]):
        # At most a quarter of a row is padding: wider rectangles save calls, but their padding took longer.
        if groups and lengths[document] * 4 >= lengths[groups[-1][0]] * 3:
            groups[-1].append(document)
        else:
            groups.append([document])
    return groups
