"""Numbers of things in words."""


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: "1 image", "3 epochs", "2 classes".

    Args:
        number: How many.
        noun: Its singular, which takes an s or, after s, x, sh or tch, an es.
    """
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {noun}{'es' if noun.endswith(('s', 'x', 'sh', 'tch')) else 's'}"
