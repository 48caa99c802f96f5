"""What `comp --help` says of each command."""

STAGES = {
    "download": "get a competition's files in order",
    "duplicates": "find equal and nearly equal images, and show them",
    "folds": "cut the training images into multilabel-stratified folds",
    "train": "train one network a fold",
    "predict": "predict held-out and test images, averaged over test-time views",
    "blend": "put the folds of a recipe together",
    "decide": "find thresholds, scored honestly",
    "submit": "write and check the submission, and note it in the ledger",
    "report": "show the run as one page: scores, labels, images and what is wrong with them",
}
OTHERS = {
    "find-lr": "try rising learning rates for some steps, and suggest one",
    "tune": "search values of a recipe's keys, on one machine or on several",
    "infer": "test images to a submission with finished models, without training data",
    "explain": "labels, probabilities and heat maps of single images, as a picture",
    "kernel": "pack a recipe for a Kaggle kernel without internet, and run it there",
    "ledger": "show all submissions, cross-fitted beside leaderboard scores",
    "compare": "finished runs beside each other: what differs, scores, classes, cost, errors",
    "bench": "time what this machine makes of it, and measure what tricks are worth",
}
ACTIONS = {"kernel": ("build", "push", "watch")}
ABOUT = """\
From joining a multi-label image competition on Kaggle to a scored submission.

The stages, in order (each can be stopped at any moment and run again):
"""
BESIDES = "\nAnd besides them:\n"
EPILOG = """\
RECIPE is a name that ships (demo, planet, planet32, hpa, hpa-drawn), or the path of a TOML file: a recipe,
or a competition of your own. Try `./run.sh` for all stages on the drawn demo competition, and `comp STAGE
--help` for a stage's options.

Exit codes: 0 done, 1 failed (one line says why), 2 wrong usage, 3 the time budget is used up (what is done
is kept; run it again to go on), 4 no images here and no Kaggle credentials to download them with.
"""
DETAILS = {
    "download": "What data/<competition>/ lacks is fetched from Kaggle, or taken from a folder with --from. "
    "Cut downloads go on where they were; archives (zip, tar, 7z, tar.7z) are unpacked into "
    "data/<competition>/; folders that are unpacked already are used where they are. manifest.json, written "
    "last, says what was found. The demo is drawn.",
    "duplicates": "Compares all images of train, test and external ones with each other by perceptual hash. "
    "Writes folds/<competition>-duplicates.csv (split, id, group, likeness), by which `comp folds` keeps "
    "duplicates in one fold and `comp train` leaves out external ones of what is held out, and a page with "
    "their pictures beside it. Images are resized on the way for training too.",
    "folds": "Writes folds/<competition>-k<folds>-s<seed>.csv and prints every class's count by fold. "
    "Duplicates stay together, and with labels.group in the competition file the images of one group.",
    "train": "Writes runs/<recipe>/fold<k>/: log.jsonl, last.pt after each epoch, model.safetensors last. "
    'One fold a GPU, or as many folds as CPU cores, at once. With track = "tensorboard" in the recipe, or '
    "wandb, mlflow, trackio, or a list of them, the epochs are shown there as well.",
    "predict": "Writes runs/<recipe>/fold<k>/oof.npz and test.npz: probabilities by id, before thresholds.",
    "blend": "Writes runs/<recipe>/oof.npz, every held-out id once, and test.npz, the mean of the folds. Of "
    "several recipes it weighs means of probabilities, logits and ranks, fitted weights and stacking across "
    "labels, cross-fitted on their common folds, and writes runs/<name>/ with a recipe.toml.",
    "decide": "Weighs rules: 0.5, 0.2, global (one threshold for all labels), per-class (exact ones), drawn "
    "(those, drawn towards the global one), expected (best expected F-beta of each image), prevalence, and "
    "with --rule also optuna, and each with +exclusive, +limits or +temperature. Where each image has "
    "exactly one label: most-probable, and drawn and per-class, which add to each label's logit. Rules are "
    "scored in-sample and cross-fitted (every fold decided by the rule as fitted to the others). Optuna's "
    "studies stay in runs/<recipe>/study.log, which optuna-dashboard opens; decision.png shows thresholds.",
    "submit": "Writes submissions/<name>.csv in the sample submission's order, checked against it, a .json "
    "beside it, and a row in submissions/ledger.csv. With --send it goes to Kaggle, at most once: killed on "
    "the way, it is looked for there first.",
    "report": "Writes runs/<recipe>/report.html, which opens anywhere without a network: scores and their "
    "spread, learning curves, each label's scores and threshold, calibration, labels that come together, "
    "held-out against test counts, the images that are answered worst, with heat maps of where the evidence "
    "lies, and labels that may be wrong. Needs what `comp decide` left; heat maps need the models.",
    "find-lr": "Trains for some steps in memory, on the batches of one fold and phase and from the weights "
    "that training starts with, at rates that grow until the loss is lost (Smith 2017). Suggests the rate at "
    "which the smoothed loss falls fastest; writes runs/<recipe>/find-lr-<phase>.png and .json. A "
    "run's weights are not touched.",
    "tune": "Trains trials with what Optuna proposes for the keys of the recipe's [tune] table, such as "
    '"phases.0.lr" = { low = 1e-4, high = 1e-2, log = true } or augment = ["dihedral", "satellite"], and the '
    "recipe's own first; the score is the held-out mAP after the last epoch. What falls behind is pruned. "
    "A trial is trained on one device: for several GPUs or machines start as many processes, each with its "
    "CUDA_VISIBLE_DEVICES, on one --storage. Killed, it goes on where it was. Writes "
    "runs/<recipe>/tune.png and tuned.toml, the recipe with the best values.",
    "infer": "Reads runs/<recipe>/fold<k>/model.safetensors and decision.json, the sample submission and the "
    "test images, which may be others than those that the models were made with. The folds' mean, decided "
    "and checked, becomes a CSV.",
    "explain": "For any image on disk: the mean of the finished networks runs/<recipe>/fold<k>/, over the "
    "recipe's test-time views, decided by decision.json, and for up to four labels, wrong ones first, "
    "where in the image the evidence for them lies (Grad-CAM). A training image is explained by the network "
    "that held it out, with its true labels. Where each channel is a file, the path of one finds the others. "
    "Writes runs/<recipe>/explain-<image>.png, a row an image; no training data is needed.",
    "kernel": "build writes runs/<recipe>/kernel-<kind>/ without running anything: kernel/ (one script that "
    "carries the package and the recipe, and kernel-metadata.json), and the dataset folders weights/ and "
    "wheels/. train runs all stages and goes on from an earlier version's output; infer makes "
    "submission.csv with the folds that are trained here. push builds, uploads the datasets that changed, "
    "runs the kernel and watches it; watch follows the last one again. Output and log come to "
    "runs/<recipe>/kernel-<kind>-v<version>/.",
}
BENCH = (
    "decide: threshold searches against each other, and rules on rows that they were not fitted on; on drawn "
    "matrices, or on --probs FILE with --labels FILE. speed: images a second of decoding, cache, loading, "
    "augmentation, the bare training step, whole training and prediction, at each size of the RECIPE, on its "
    "images if they were downloaded and on drawn ones of 256 px if not; names what holds training up. "
    "tricks: the RECIPE as it is and with each change of --tricks, trained with several seeds on the same "
    "part of its images, one fold held out; stopped anywhere, it goes on from there."
)
LEDGER = (
    "All submissions with their cross-fitted, public and private scores. Draws them against each other in "
    "submissions/ledger.png."
)
COMPARE = (
    "Finished runs of one competition beside each other, on the images that all of them held out: the "
    "settings that differ, as the runs' own files have them; cross-fitted scores, and their differences to "
    "the first run, with 95 % intervals by paired bootstrap; average precision and F-beta by class; training "
    "time, rate, memory and parameters; how alike they err, and what the mean of two gains. Draws scores and "
    "errors in runs/compare-<names>.png."
)
