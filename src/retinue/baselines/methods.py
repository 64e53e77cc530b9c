"""The baselines: each a function that gives the classifiers to choose from, by what tells them apart.

A baseline is found by `@baseline`, with the features that it learns from. Its docstring begins with its name in
tables, up to the colon. scikit-learn is imported inside: it takes seconds, and only who fits needs it.
"""

from retinue.baselines.registry import Candidates, baseline
from retinue.pipeline.numbers import significant

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""C of a logistic regression on standardised features, the strongest regularisation first."""
MARGINS = (0.01, 0.1, 1.0)
"""C of the support vector machine, on the descriptors as they are; 0.01 is that of Dalal and Triggs."""
NEIGHBOURS = (15, 5, 1)


@baseline("none")
def majority() -> Candidates:
    """majority: the most frequent class of the training images, whatever the image."""
    from sklearn.dummy import DummyClassifier

    return {"": DummyClassifier(strategy="prior")}


@baseline("file_features")
def file_metadata() -> Candidates:
    """file metadata: trees on size, format, dimensions and EXIF of the file alone (Geurts et al. 2006)."""
    from sklearn.ensemble import ExtraTreesClassifier

    return {
        f"{leaf} images a leaf": ExtraTreesClassifier(50, min_samples_leaf=leaf, max_features=None, n_jobs=1)
        for leaf in (20, 5, 1)
    }


@baseline("colour_histogram")
def colour_logistic() -> Candidates:
    """colour histogram + logistic regression: which colours there are, wherever they are."""
    return _logistic()


@baseline("gradients")
def hog_linear_svm() -> Candidates:
    """HOG + linear SVM: histograms of oriented gradients, one class against the rest (Dalal and Triggs 2005)."""
    from sklearn.svm import LinearSVC

    return {f"C {significant(c)}": LinearSVC(C=c, dual=True, max_iter=1000) for c in MARGINS}


@baseline("small_image")
def naive_bayes() -> Candidates:
    """Gaussian naive Bayes: each px of the image at 16 px by itself."""
    from sklearn.naive_bayes import GaussianNB

    return {f"smoothing {significant(share)}": GaussianNB(var_smoothing=share) for share in (0.1, 0.01, 0.001)}


@baseline("frozen_features")
def frozen_neighbours() -> Candidates:
    """frozen features + nearest neighbours: a vote among the training images whose features point most alike."""
    from sklearn.neighbors import KNeighborsClassifier

    return {f"k {k}": KNeighborsClassifier(k, metric="cosine", algorithm="brute", n_jobs=1) for k in NEIGHBOURS}


@baseline("frozen_features")
def frozen_logistic() -> Candidates:
    """frozen features + logistic regression: a linear probe on what the initial weights see (Alain and Bengio 2017)."""
    return _logistic()


def _logistic() -> Candidates:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        f"C {significant(c)}": make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300)) for c in STRENGTHS
    }
