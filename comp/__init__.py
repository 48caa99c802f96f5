"""comp: from joining a multi-label image competition on Kaggle to a scored submission."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """comp.decide, imported when it is asked for: `import comp` stays instant."""
    if name == "decide":
        from comp.decisions.decide import decide

        return decide
    raise AttributeError(f"module 'comp' has no attribute {name!r}")
