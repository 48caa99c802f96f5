"""What the leaderboards of known competitions count, as [metric] has it."""

from typing import Any

F1_MACRO, F1_MICRO = {"beta": 1, "average": "macro"}, {"beta": 1, "average": "micro"}
F1_SAMPLES, F2_SAMPLES = {"beta": 1, "average": "samples"}, {"beta": 2, "average": "samples"}
AUC, LOG_LOSS, MAP_5 = {"name": "roc_auc"}, {"name": "log_loss"}, {"name": "map_at_k", "k": 5}
ACCURACY, KAPPA = {"name": "accuracy"}, {"name": "quadratic_kappa"}

METRICS: dict[str, dict[str, Any]] = {  # by the end of a competition's address
    "planet-understanding-the-amazon-from-space": F2_SAMPLES,
    "human-protein-atlas-image-classification": F1_MACRO,
    "plant-pathology-2021-fgvc8": F1_SAMPLES,
    "imet-2019-fgvc6": F2_SAMPLES,
    "imet-2020-fgvc7": F1_MICRO,
    "iwildcam-2019-fgvc6": F1_MACRO,
    "iwildcam-2020-fgvc7": ACCURACY,
    "cassava-leaf-disease-classification": ACCURACY,
    "paddy-disease-classification": ACCURACY,
    "state-farm-distracted-driver-detection": LOG_LOSS,
    "plant-seedlings-classification": F1_MICRO,
    "herbarium-2020-fgvc7": F1_MACRO,
    "herbarium-2021-fgvc8": F1_MACRO,
    "herbarium-2022-fgvc9": F1_MACRO,
    "plant-pathology-2020-fgvc7": AUC,
    "ranzcr-clip-catheter-line-classification": AUC,
    "aerial-cactus-identification": AUC,
    "histopathologic-cancer-detection": AUC,
    "siim-isic-melanoma-classification": AUC,
    "invasive-species-monitoring": AUC,
    "dogs-vs-cats-redux-kernels-edition": LOG_LOSS,
    "dog-breed-identification": LOG_LOSS,
    "leaf-classification": LOG_LOSS,
    "statoil-iceberg-classifier-challenge": LOG_LOSS,
    "rsna-intracranial-hemorrhage-detection": {"name": "log_loss", "weights": {"any": 2}},
    "aptos2019-blindness-detection": KAPPA,
    "diabetic-retinopathy-detection": KAPPA,
    "prostate-cancer-grade-assessment": KAPPA,
    "petfinder-pawpularity-score": {"name": "rmse"},
    "hotel-id-2021-fgvc8": MAP_5,
    "humpback-whale-identification": MAP_5,
    "whale-categorization-playground": MAP_5,
    "inaturalist-2019-fgvc6": {"name": "top_k_error", "k": 1},
    "rsna-breast-cancer-detection": {"name": "probabilistic_fbeta", "beta": 1},
}
