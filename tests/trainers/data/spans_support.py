"""Undoes span corruption, for tests."""


def restore(inputs, targets, first_sentinel, lowest_sentinel) -> list[int]:
    """Reads targets as a dictionary from sentinels to spans, one token at a time."""
    assert inputs[-1] == targets[-1] == 1
    hidden, current = {}, None
    for token in targets[:-1]:
        if lowest_sentinel <= token <= first_sentinel:
            current = hidden.setdefault(token, [])
        else:
            current.append(token)
    raw = []
    for token in inputs[:-1]:
        raw += hidden.pop(token) if token in hidden else [token]
    assert not hidden
    return raw
