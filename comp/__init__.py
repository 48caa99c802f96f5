"""comp: from joining a multi-label image competition on Kaggle to a scored submission."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import comp.decide and comp.FBeta on first use, so that `import comp` stays instant."""
    if name == "decide":
        from comp.decisions.decide import decide

        return decide
    if name == "FBeta":
        from comp.decisions.metrics import FBeta

        return FBeta
    raise AttributeError(f"module 'comp' has no attribute {name!r}")
