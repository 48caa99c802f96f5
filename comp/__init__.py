"""comp: from joining a multi-label image competition on Kaggle to a scored submission."""

__version__ = "0.1.0"
