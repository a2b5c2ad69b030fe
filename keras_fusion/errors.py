"""Errors and warnings that the library raises, and the pages that they point to."""

# Folder of the documentation's pages; its address once the site has one, as in pyproject.toml.
DOCS = "docs"


class FusionError(ValueError):
    """Networks that cannot be fused. The message names every reason, with the values."""


class SymmetryWarning(UserWarning):
    """Fused copies that would stay equal for ever: the network grew, its capacity did not."""


def docs_page(name, section):
    """Returns the place of a section of the documentation, for the end of a message.

    Args:
        name: Page of `docs/`, such as "plugin".
        section: Its heading as links have it, such as "layers-of-your-own".

    Examples:
        >>> docs_page("plugin", "layers-of-your-own")
        'docs/plugin.md#layers-of-your-own'
    """
    return f"{DOCS}/{name}.md#{section}"


# The end of a message on what is not the user's mistake.
PLEASE_REPORT = f"please report it: {docs_page('faq', 'report-a-bug')} says what to send"
