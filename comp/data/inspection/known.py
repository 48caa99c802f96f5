"""What the leaderboards of known competitions count. A metric that comp doesn't compute is said, not replaced
in silence."""

from typing import Any

F1_MACRO, F1_MICRO = {"beta": 1, "average": "macro"}, {"beta": 1, "average": "micro"}
F1_SAMPLES, F2_SAMPLES = {"beta": 1, "average": "samples"}, {"beta": 2, "average": "samples"}
ACCURACY: dict[str, Any] = {"average": "accuracy"}
AUC, LOG_LOSS = "ROC AUC, of probabilities", "log loss, of probabilities"

# the end of a competition's address: its metric, as [metric] has it, or in words
METRICS: dict[str, dict[str, Any] | str] = {
    "planet-understanding-the-amazon-from-space": F2_SAMPLES,
    "human-protein-atlas-image-classification": F1_MACRO,
    "plant-pathology-2021-fgvc8": F1_SAMPLES,
    "imet-2019-fgvc6": F2_SAMPLES,
    "imet-2020-fgvc7": F1_MICRO,
    "iwildcam-2019-fgvc6": F1_MACRO,
    "cassava-leaf-disease-classification": ACCURACY,
    "paddy-disease-classification": ACCURACY,
    "plant-seedlings-classification": F1_MICRO,
    "herbarium-2020-fgvc7": F1_MACRO,
    "herbarium-2021-fgvc8": F1_MACRO,
    "herbarium-2022-fgvc9": F1_MACRO,
    "plant-pathology-2020-fgvc7": "the mean of the columns' " + AUC,
    "ranzcr-clip-catheter-line-classification": "the mean of the columns' " + AUC,
    "aerial-cactus-identification": AUC,
    "histopathologic-cancer-detection": AUC,
    "siim-isic-melanoma-classification": AUC,
    "invasive-species-monitoring": AUC,
    "dogs-vs-cats-redux-kernels-edition": LOG_LOSS,
    "dog-breed-identification": LOG_LOSS,
    "leaf-classification": LOG_LOSS,
    "statoil-iceberg-classifier-challenge": LOG_LOSS,
    "rsna-intracranial-hemorrhage-detection": "weighted " + LOG_LOSS,
    "aptos2019-blindness-detection": "quadratic weighted kappa of ordered grades",
    "petfinder-pawpularity-score": "the root of the mean squared error, of numbers",
    "hotel-id-2021-fgvc8": "MAP@5, of five labels an image",
    "whale-categorization-playground": "MAP@5, of five labels an image",
    "rsna-breast-cancer-detection": "probabilistic F1, of probabilities",
}
