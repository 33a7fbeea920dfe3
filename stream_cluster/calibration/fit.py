"""The logistic scale that fits labelled pairs best: logistic regression of "same person" on the cosine.

Maximum likelihood, with genuine and impostor pairs weighted so that each class counts half:

    maximise   1/2 mean over genuine  [ g log s(z) + (1 - g) log s(-z) ]
             + 1/2 mean over impostor [ i log s(z) + (1 - i) log s(-z) ],
    z = slope * (cosine - midpoint),  s(z) = 1 / (1 + exp(-z)),
    g = (G + 1) / (G + 2),  i = 1 / (I + 2)  for G genuine and I impostor pairs.

Because of the equal weights, s(z) estimates p_genuine / (p_genuine + p_impostor): similarity 0.5 is where
both densities are equal, however many pairs of each kind were given (N. Brümmer and J. du Preez,
"Application-independent evaluation of speaker detection", Computer Speech and Language 20, 2006). The targets
g and i instead of 1 and 0 keep the slope finite where the classes do not overlap (J. Platt, "Probabilistic
outputs for support vector machines", 1999); with many pairs they change nothing. The function is convex.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from stream_cluster.calibration.scores import Scores, centres
from stream_cluster.config.similarity import MAX_SLOPE
from stream_cluster.errors import InputError
from stream_cluster.matching.scale import LogisticScale

Floats = npt.NDArray[np.float64]


def fit_logistic(scores: Scores) -> LogisticScale:
    """The fitted scale. A slope above the highest that settings allow is cut to it.

    Raises:
        InputError: a class has no pairs, or genuine pairs are not more similar than impostor pairs.
    """
    genuine_pairs, impostor_pairs = int(scores.genuine.sum()), int(scores.impostor.sum())
    if not (genuine_pairs and impostor_pairs):
        raise InputError(
            f"found {genuine_pairs:,} genuine and {impostor_pairs:,} impostor pairs, expected some of each"
        )
    used = (scores.genuine + scores.impostor) > 0
    cosines = centres()[used]
    weights_genuine = scores.genuine[used] / (2 * genuine_pairs)
    weights_impostor = scores.impostor[used] / (2 * impostor_pairs)
    target_genuine = (genuine_pairs + 1) / (genuine_pairs + 2)
    target_impostor = 1 / (impostor_pairs + 2)
    ones = weights_genuine * target_genuine + weights_impostor * target_impostor
    weights = weights_genuine + weights_impostor
    mean = float(weights @ cosines)
    deviation = float(np.sqrt(weights @ (cosines - mean) ** 2)) or 1.0
    slope, offset = _minimum((cosines - mean) / deviation, ones, weights)
    if slope <= 0:
        raise InputError("genuine pairs are not more similar than impostor pairs; are the labels right?")
    midpoint = mean - offset / slope * deviation
    if not -1 < midpoint < 1:
        raise InputError(
            f"the fitted midpoint is {midpoint:.3g}, expected a cosine: the classes hardly differ; "
            "are the labels right?"
        )
    return LogisticScale(midpoint, min(slope / deviation, MAX_SLOPE))


def _minimum(x: Floats, ones: Floats, weights: Floats) -> tuple[float, float]:
    """Slope and offset of z = slope * x + offset; `ones` is the part of each weight with the target 1."""

    def z(parameters: Floats) -> Floats:
        values: Floats = parameters[0] * x + parameters[1]
        return values

    def loss(parameters: Floats) -> float:
        values = z(parameters)
        return -float(ones @ log_expit(values) + (weights - ones) @ log_expit(-values))

    def gradient(parameters: Floats) -> Floats:
        error = weights * expit(z(parameters)) - ones
        return np.array([error @ x, error.sum()])

    def hessian(parameters: Floats) -> Floats:
        values = z(parameters)
        curvature = weights * expit(values) * expit(-values)
        mixed = curvature @ x
        return np.array([[curvature @ (x * x), mixed], [mixed, curvature.sum()]])

    found = minimize(
        loss, np.array([1.0, 0.0]), jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-10}
    )
    return float(found.x[0]), float(found.x[1])
