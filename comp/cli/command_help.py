"""The help texts of `comp --help` and `comp COMMAND --help`."""

STAGES = {
    "download": "download a competition's files, and unpack them",
    "duplicates": "find equal and nearly equal images, and show them on a page",
    "folds": "split the training images into multilabel-stratified folds",
    "train": "train one network per fold",
    "predict": "predict held-out and test images, with test-time augmentation",
    "blend": "combine the predictions of all folds, or of several recipes",
    "decide": "find the best thresholds, cut points or calibration; report a cross-fitted score",
    "submit": "write and check the submission, and add it to the ledger",
    "report": "write one page about a run: scores, labels, images, likely label errors",
}
OTHERS = {
    "init": "write the TOML of a competition of your own, from its files",
    "show": "print a recipe with all its keys, and where each value comes from",
    "keys": "list all keys of a recipe with type, default and a line",
    "run": "all stages, one after the other, in one process",
    "runs": "list all runs: settings, folds that are done, scores",
    "watch": "a page that shows runs while they are trained: curves, pace, time left, worst images",
    "plan": "what a recipe will cost: disk, memory and time, here and on Kaggle",
    "look": "pictures of what a network will see: the first batches, with labels and checks",
    "find-lr": "learning-rate range test: suggest a learning rate",
    "tune": "hyperparameter search with Optuna, on one machine or on several",
    "infer": "make a submission with finished models, without training data",
    "adversarial": "how well test images can be told from training images; weights for it",
    "explain": "labels, probabilities and Grad-CAM heat maps of single images, as a picture",
    "suspects": "list the labels of a run that may be wrong, the most doubtful first",
    "kernel": "pack a recipe as a Kaggle kernel without internet, and run it there",
    "ledger": "list all submissions: cross-fitted beside leaderboard scores",
    "compare": "compare finished runs: settings, scores, classes, cost, errors",
    "check": "check GPUs, driver and training on this machine, in ten minutes",
    "bench": "benchmark this machine; ablation of a recipe's settings",
}
ACTIONS = {"kernel": ("build", "push", "watch")}
ABOUT = """\
From joining a multi-label image competition on Kaggle to a scored submission.

The stages, in order (each can be stopped at any time and resumed by the same command):
"""
BESIDES = "\nOther commands:\n"
EPILOG = """\
RECIPE is the name of a shipped recipe (demo, planet, planet-convnext, planet32, hpa, hpa-convnext,
hpa-drawn), or of a run in runs/, or the path of a TOML file: a recipe, or your own competition. The first
stage of a run keeps its settings in runs/<name>/recipe.toml, so the later ones need its name alone;
--as NAME starts a second run of a recipe.
`comp COMMAND --help` shows a command's options.

Exit codes: 0 done, 1 failed (one line says why), 2 wrong usage, 3 time budget used up (finished work is
kept; the same command resumes), 4 images missing and no Kaggle credentials to download them.
"""
DETAILS = {
    "run": "Runs the stages above in order, and ends with a summary: score, leaderboard, best and worst "
    "labels, files. Finished stages are skipped; a finished run answers at once. Without the images of hpa "
    "and without Kaggle credentials, synthetic cells (hpa-drawn) stand in.",
    "download": "Downloads the files that data/<competition>/ lacks from Kaggle, or takes them from a "
    "folder with --from. Interrupted downloads are resumed. Archives (zip, tar, 7z, tar.7z) are unpacked "
    "into data/<competition>/; folders that are unpacked already are used in place. manifest.json, written "
    "last, lists what was found. The images of the demo are generated.",
    "duplicates": "Compares all train, test and external images with each other by perceptual hash. Writes "
    "folds/<competition>-duplicates.csv (split, id, group, likeness), and a page with their pictures. `comp "
    "folds` keeps duplicates in one fold; `comp train` leaves out external duplicates of held-out images. "
    "Images are resized for training in the same pass.",
    "folds": "Writes folds/<competition>-k<folds>-s<seed>.csv, and prints the images per class and fold. "
    "Duplicates stay in one fold; so do images of one group, if the competition file sets labels.group.",
    "train": "Writes runs/<recipe>/fold<k>/: log.jsonl, last.pt after each epoch, model.safetensors last. "
    'Trains one fold per GPU, or as many folds as there are CPU cores, at once. With track = "tensorboard" '
    "in the recipe (or wandb, mlflow, trackio, or a list of them), the epochs are sent there too.",
    "predict": "Writes runs/<recipe>/fold<k>/oof.npz and test.npz: probabilities by id, before thresholds.",
    "blend": "Of one recipe: writes runs/<recipe>/oof.npz, with every held-out id once, and test.npz, the "
    "mean of the folds. Of several recipes: compares means of probabilities, logits and ranks, fitted "
    "weights, and stacking across labels, cross-fitted on their common folds; writes runs/<name>/ with a "
    "recipe.toml.",
    "decide": "Compares decision rules: 0.5, 0.2, global (one threshold for all labels), per-class (the "
    "best threshold of each label), shrunk (per-class thresholds, shrunk towards the global one), expected "
    "(best expected F-beta of each image), prevalence; with --rule also optuna, and each rule with "
    "+exclusive, +limits or +temperature. With exactly one label per image: most-probable, and shrunk and "
    "per-class, which add an offset to each label's logit. Of grades: most-probable, rounded (the expected "
    "grade) and cut-points on it; of log loss: as-is, calibrated, and temperature with one label per image; "
    "of probabilistic F-beta: binary too; of numbers: as-is, clipped; of AUC and rankings nothing is to be "
    "decided. Scores are in-sample and cross-fitted (each fold is decided by the rule fitted to the other "
    "folds). --thresholds FILE takes the values of a file instead, such as one of the report's threshold "
    "lab. They decide the test images. Their score is called in-sample, since who chose them may have seen "
    "all held-out images; the automatic rule's cross-fitted score stays beside. Optuna's studies are kept in "
    "runs/<recipe>/study.log, which optuna-dashboard opens. "
    "decision.png shows thresholds and what they gain, cut points, ROC and reliability, or numbers.",
    "submit": "Writes submissions/<name>.csv in the sample submission's order, checks it, writes a .json "
    "beside it, and adds a row to submissions/ledger.csv. --send sends it to Kaggle, at most once: after an "
    "interruption, Kaggle is first asked whether it arrived.",
    "report": "Writes runs/<recipe>/report.html, which needs no network: scores and their spread, learning "
    "curves, a lab whose sliders set thresholds and show the score at once, calibration, co-occurrence of "
    "labels, label counts of held-out and test images, a map of the images, those with the worst errors and "
    "their heat maps, and likely label errors; and card.png, the run in one picture to show. Run `comp "
    "decide` first; heat maps need the models.",
    "plan": "Prints, before anything is downloaded or trained, how many images there are, what their "
    "resized copies take on the disk, the memory that a GPU needs, and the time of each phase: on this "
    "machine by a few steps of the network, on other cards by estimate. Says whether a kernel on two T4 does "
    "it within Kaggle's limits and, if not, what to change. Nothing is written.",
    "look": "Draws the first batch of each phase as the network gets it: resized, augmented, normalised, "
    "mixed by mixup or cutmix, with its labels; and the test-time views of a held-out image. Joined channels "
    "are shown one by one too. Prints mean and deviation after normalising, black pixels, sizes and label "
    "counts, and what is odd about them. Needs `comp download` alone; of images that are not resized yet, "
    "those of the batches are decoded. Writes runs/<recipe>/look-<phase>.png.",
    "find-lr": "Trains for some steps in memory, on one fold and phase, starting from the same weights as "
    "training, at learning rates that grow until the loss diverges (Smith 2017). Suggests the rate at which "
    "the smoothed loss falls fastest. Writes runs/<recipe>/find-lr-<phase>.png and .json; the run's weights "
    "stay unchanged.",
    "tune": "Trains trials with values that Optuna proposes for the keys of the recipe's [tune] table, such "
    'as "phases.0.lr" = { low = 1e-4, high = 1e-2, log = true } or augment = ["dihedral", "satellite"]; the '
    "first trial is the recipe itself. The score is the held-out mAP after the last epoch; bad trials are "
    "pruned early. Each trial uses one device: for several GPUs or machines, start several processes on one "
    "--storage, each with its own CUDA_VISIBLE_DEVICES. The same command resumes after a kill. Writes "
    "runs/<recipe>/tune.png and tuned.toml, the recipe with the best values.",
    "infer": "Reads runs/<recipe>/fold<k>/model.safetensors and decision.json, the sample submission and "
    "the test images, which may differ from those at training time. Predicts the mean of the folds, decides "
    "it, checks it and writes it as a CSV.",
    "adversarial": "Adversarial validation: for each fold's network, which has seen neither, a logistic "
    "regression on pooled features tells its held-out images from test images. Prints the cross-validated "
    "AUC with its 95 % interval, a warning where the whole interval is above 0.6, and the training images "
    "that look most like test images. Images of one group, or duplicates, are never on both sides of a "
    "split. Writes runs/<recipe>/adversarial.csv: p_test, the probability of the test set if both sets were "
    "equally large, and weight, p_test / (1 - p_test) cut to 0.1 … 10 and divided by its mean. "
    "`comp run RECIPE --as NAME --set competition.labels.weight_csv=runs/<recipe>/adversarial.csv` trains "
    "with these weights. Writes adversarial.png too: the two distributions, and images from their ends.",
    "explain": "For any image on disk: the mean of the finished networks runs/<recipe>/fold<k>/ over the "
    "recipe's test-time views, the labels by decision.json, and Grad-CAM heat maps of up to four labels, "
    "wrong ones first. A training image is explained by the network that held it out, with its true labels. "
    "If each channel is a file, give one of them. Writes runs/<recipe>/explain-<image>.png, one row per "
    "image; no training data is needed.",
    "suspects": "Lists labels, grades or numbers that contradict networks that were not trained on their "
    "images, as the report does, and writes all to runs/<recipe>/suspects.csv (id, label, given, "
    "probability, doubt, fold). Labels stay as they are: tick suspects as wrong, right or unsure in the "
    "report, which makes corrections.csv, and train with it: --as NAME --set "
    "competition.labels.corrections=corrections.csv.",
    "kernel": "build writes runs/<recipe>/kernel-<kind>/ without running anything: kernel/ (a script that "
    "contains the package and the recipe, and kernel-metadata.json), and the dataset folders weights/ and "
    "wheels/. Kind train runs all stages, and can resume from an earlier version's output; kind infer makes "
    "submission.csv with the folds that are trained here. push builds, uploads changed datasets, runs the "
    "kernel and watches it; watch follows the last pushed version again. Output and log are saved in "
    "runs/<recipe>/kernel-<kind>-v<version>/.",
}
# commands that take none of the stages' options
STANDALONE = {
    "init": (
        "Looks at a competition's files, or with a SLUG at Kaggle's list of them and its tables, and "
        "writes a commented TOML: the table of labels, its ids and the form of its labels, groups, the "
        "images, the sample submission, and the metric where the competition is known. Says what it saw,"
        " and what it could not know. The file is read back before it is said to run."
    ),
    "show": (
        "Prints the recipe with all its keys as TOML, and where each value comes from: the recipe's "
        "file, the one that it extends, its competition, --set, or the default."
    ),
    "keys": (
        "Lists the keys of a recipe and of its competition, as --set takes them, with type, default and "
        "a line."
    ),
    "runs": (
        "Lists the runs in runs/, the newest first: backbone, sizes, folds that are done, scores, time, rank."
    ),
    "watch": (
        "Serves a page on this machine alone that shows runs while they are trained, the newest first: "
        "curves by fold and phase, learning rates, images per second beside the bare step (if `comp bench "
        "speed RUN` measured it), memory, the time left of all folds, the worst held-out images after "
        "each epoch, and another run at the same epoch. It only reads, without locks and at the lowest "
        "priority, so it can be ended and started again at any time. With --host other machines reach it: "
        "its address then holds a token, and whoever has it sees the runs. --static serves nothing: it "
        "writes runs/watch.html after each epoch, and ends when all watched runs are trained. On Kaggle: "
        "`comp watch RECIPE --static & comp train RECIPE`."
    ),
    "ledger": (
        "Lists all submissions with their cross-fitted, public and private scores, and plots them by date "
        "and against each other in submissions/ledger.png."
    ),
    "compare": (
        "Compares finished runs of one competition on the images that all of them held out: the settings "
        "that differ, as the runs' files have them; cross-fitted scores, and differences to the first run, "
        "with 95 % intervals by paired bootstrap; average precision and F-beta per class; training time, "
        "images per second, memory and parameters; how similar their errors are, and what averaging two "
        "runs gains. Plots scores and errors in runs/compare-<names>.png."
    ),
    "check": (
        "Lists what the machine has, and checks on random images that training is right, resumable and fast: "
        "a step in each precision against fp32; compiled; resumed; on two devices; the bare step against the "
        "whole training of ResNet-50 and ConvNeXt-Tiny at 64, 128 and 256 px; prediction over the views; "
        "memory and the largest batch that fits. A check for which there is no time is skipped. Writes "
        "runs/check.json, to attach to a report of a fault. Exits with 1 if a check fails."
    ),
    "bench": (
        "decide: compare threshold searches, and rules on rows that they were not fitted to; on synthetic "
        "matrices, or on --probs FILE with --labels FILE. speed: images per second of decoding, cache, "
        "loading, augmentation, the bare training step, training and prediction, at each size of the "
        "RECIPE, on its images or, if they are not downloaded, on synthetic ones of 256 px; names the "
        "bottleneck of training, and writes the rates of the bare step to runs/<recipe>/bare-step.json, "
        "which `comp watch` shows. tricks: an ablation: train the RECIPE as it is and with each change of "
        "--tricks, with several seeds, on the same part of its images, with one fold held out. The same "
        "command resumes."
    ),
}
