"""Calibration on data whose truth is known: the fit, the rates, the pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import beta

from stream_cluster.calibration.fit import fit_logistic
from stream_cluster.calibration.pairs import read_descriptors, scores_of_labelled, scores_of_pairs
from stream_cluster.calibration.plot import HEIGHT, WIDTH, text_plot
from stream_cluster.calibration.rates import Rate, Rates
from stream_cluster.calibration.report import FLOOR_RATIO, as_dict, calibrate, settings_text
from stream_cluster.calibration.scores import BINS, Scores, bounds
from stream_cluster.config import load_settings
from stream_cluster.errors import Cancelled, InputError
from stream_cluster.matching import quantise
from stream_cluster.matching.scale import make_scale
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.offline.sources import find_sources
from tests.support.oracle import naive_similarity

SPREAD = 0.08


def normal_scores(genuine=200_000, impostors=600_000, *, means=(0.5, 0.2), seed=0):
    """Cosines of two normal distributions of equal spread, for which the logistic scale is exact.

    The log of the ratio of their densities is a line, zero in the middle of the means, with the slope
    difference of means / variance.
    """
    random = np.random.default_rng(seed)
    scores = Scores()
    for mean, count, same in ((means[0], genuine, True), (means[1], impostors, False)):
        cosines = random.normal(mean, SPREAD, count).astype(np.float32)
        scores.add(cosines, np.full(count, same))
    return scores


def few_scores(genuine, impostors):
    scores = Scores()
    scores.add(np.array(genuine, np.float32), np.ones(len(genuine), bool))
    scores.add(np.array(impostors, np.float32), np.zeros(len(impostors), bool))
    return scores


# -- the fit -------------------------------------------------------------------------------------------


def test_the_logistic_scale_of_two_normal_distributions_is_recovered():
    scale = fit_logistic(normal_scores())
    assert scale.midpoint == pytest.approx(0.35, abs=0.002)
    assert scale.slope == pytest.approx(0.3 / SPREAD**2, rel=0.02)


@pytest.mark.parametrize("impostors", [2_000, 2_000_000])
def test_the_numbers_of_pairs_of_each_class_do_not_move_the_scale(impostors):
    scale = fit_logistic(normal_scores(20_000, impostors))
    assert scale.midpoint == pytest.approx(0.35, abs=0.01)
    assert scale.slope == pytest.approx(0.3 / SPREAD**2, rel=0.12)


def test_classes_that_do_not_overlap_still_give_a_finite_scale_between_them():
    scale = fit_logistic(few_scores([0.8, 0.9, 0.85], [0.1, 0.2, -0.1]))
    assert 0.2 < scale.midpoint < 0.8
    assert 1 < scale.slope < 100


def test_a_slope_never_exceeds_what_settings_allow():
    scale = fit_logistic(few_scores([0.5001] * 1000, [0.5] * 1000))
    assert scale.slope == 10_000


@pytest.mark.parametrize(
    ("genuine", "impostors", "expected"),
    [
        ([0.5], [], "found 1 genuine and 0 impostor pairs"),
        ([], [], "found 0 genuine and 0 impostor pairs"),
        ([0.1, 0.2], [0.7, 0.8], "not more similar than impostor pairs"),
        ([0.5, 0.6], [0.5, 0.6], "are the labels right"),
    ],
)
def test_pairs_that_no_scale_can_be_fitted_to_are_an_error(genuine, impostors, expected):
    with pytest.raises(InputError, match=expected):
        fit_logistic(few_scores(genuine, impostors))


# -- rates ---------------------------------------------------------------------------------------------


def test_rates_count_strictly_above_the_threshold_as_links_do():
    rates = Rates(few_scores([0.25, 0.5, 0.75, 1.0], [-1.0, 0.0, 0.5]))
    found = {cosine: rates.at(cosine) for cosine in (-1.0, 0.0, 0.25, 0.5, 1.0)}
    assert {c: p.fnmr.errors for c, p in found.items()} == {-1.0: 0, 0.0: 0, 0.25: 1, 0.5: 2, 1.0: 4}
    assert {c: p.fmr.errors for c, p in found.items() if c > -1} == {0.0: 1, 0.25: 1, 0.5: 0, 1.0: 0}


def test_rates_at_every_bound_equal_a_plain_count():
    random = np.random.default_rng(5)
    genuine, impostors = random.uniform(-1, 1, 400), random.uniform(-1, 1, 500)
    rates = Rates(few_scores(genuine, impostors))
    genuine, impostors = genuine.astype(np.float32), impostors.astype(np.float32)
    for index in random.integers(1, BINS, 200):
        bound = bounds()[index]
        assert rates.fmr[index] == np.mean(impostors > bound)
        assert rates.fnmr[index] == np.mean(genuine <= bound)


def test_a_cosine_hardly_above_a_bound_lies_above_it():
    tiny = np.float32(1e-30)
    rates = Rates(few_scores([tiny], [tiny, 0.0]))
    assert rates.at(0.0).fmr.errors == 1
    assert rates.at(0.0).fnmr.errors == 0


def test_the_threshold_at_a_false_match_rate_is_the_lowest_that_keeps_it():
    rates = Rates(normal_scores())
    for target in (1e-2, 1e-3, 1e-4):
        point = rates.at_fmr(target)
        below = rates.at(point.cosine - 1 / 32768)
        assert point.fmr.value <= target < below.fmr.value


def test_the_equal_error_rate_of_two_normal_distributions_is_at_their_middle():
    point = Rates(normal_scores()).equal_error()
    assert point.cosine == pytest.approx(0.35, abs=0.002)
    assert (point.fmr.value + point.fnmr.value) / 2 == pytest.approx(0.0304, rel=0.03)


@pytest.mark.parametrize(("errors", "trials"), [(1, 10), (5, 1000), (999, 1000), (50, 100)])
def test_intervals_are_those_of_clopper_and_pearson(errors, trials):
    low = beta.ppf(0.025, errors, trials - errors + 1)
    high = beta.ppf(0.975, errors + 1, trials - errors)
    assert Rate(errors, trials).interval == pytest.approx((low, high))


def test_without_an_error_the_rule_of_three_bounds_the_rate():
    assert Rate(0, 1000).interval == (0.0, 0.003)
    assert Rate(1000, 1000).interval == (0.997, 1.0)
    assert Rate(0, 2).interval == (0.0, 1.0)


def test_few_impostor_pairs_do_not_support_a_low_rate():
    rates = Rates(few_scores([0.9], [0.1] * 300))
    assert rates.supports(1e-2)
    assert not rates.supports(1e-3)


# -- the report ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["toml", "yaml"])
@pytest.mark.parametrize("version", [None, 62])
def test_the_settings_can_be_pasted_and_give_the_fitted_scale(tmp_path, form, version):
    calibration = calibrate(normal_scores(), 600_000, 1e-3)
    path = tmp_path / f"settings.{form}"
    path.write_text(settings_text(calibration, "body", version, form))
    similarity = load_settings(path, {}).similarity
    loaded = similarity.of_version("body", 62)
    assert make_scale(loaded) == calibration.scale
    assert (loaded.default_threshold, loaded.floor) == (calibration.default_threshold, calibration.floor)
    assert (similarity.of_version("body", 1) == similarity.of_version("body", 62)) == (version is None)
    rates = calibration.rates
    assert rates.at(float(calibration.scale.to_cosine(loaded.default_threshold))).fmr.value <= 1.02e-3
    assert rates.at_fmr(FLOOR_RATIO * 1e-3).cosine == pytest.approx(
        float(calibration.scale.to_cosine(loaded.floor)), abs=1e-4
    )


def test_figures_for_scripts_agree_with_the_rates():
    calibration = calibrate(normal_scores(), 1_000_000, 1e-3)
    found = as_dict(calibration)
    assert (found["genuine_pairs"], found["impostor_pairs"]) == (200_000, 600_000)
    assert found["impostor_pairs_in_all"] == 1_000_000
    assert found["classes_overlap"] is True
    assert [row["target"] for row in found["at_fmr"]] == [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    assert [row["enough_pairs"] for row in found["at_fmr"]] == [True, True, True, True, False]
    half = next(row for row in found["rates"] if abs(row["similarity"] - 0.5) < 0.01)
    assert half["fmr"]["low_95"] < half["fmr"]["value"] == pytest.approx(0.0304, rel=0.05)
    assert half["fmr"]["value"] < half["fmr"]["high_95"]


def test_the_text_plot_shows_both_curves_and_where_they_meet():
    lines = text_plot(calibrate(normal_scores(), 600_000, 1e-3)).splitlines()
    canvas = [line[9:].ljust(WIDTH) for line in lines[:HEIGHT]]
    assert all(len(line) <= WIDTH + 9 for line in lines[:HEIGHT])
    false_match = {
        column: row for row, line in enumerate(canvas) for column in range(WIDTH) if line[column] in "mx"
    }
    false_non_match = {c: row for row, line in enumerate(canvas) for c in range(WIDTH) if line[c] in "nx"}
    rows = [false_match[column] for column in sorted(false_match)]
    assert rows == sorted(rows)
    rows = [false_non_match[column] for column in sorted(false_non_match)]
    assert rows == sorted(rows, reverse=True)
    assert min(false_match.values()) == min(false_non_match.values()) == 0
    both = sorted(set(false_match) & set(false_non_match))
    above = [false_match[column] < false_non_match[column] for column in both]
    assert above == sorted(above, reverse=True)
    assert (above[0], above[-1]) == (True, False)


def test_classes_far_apart_can_be_drawn_too():
    plot = text_plot(calibrate(few_scores([0.9] * 5, [-0.5] * 5), 5, 0.1))
    assert "m" in plot
    assert "n" in plot


# -- pairs ---------------------------------------------------------------------------------------------

LABELS = np.array(["b", "a", "c", "a", "b", "a", "d", "b"])


def people(seed=1):
    random = np.random.default_rng(seed)
    return random.standard_normal((len(LABELS), 12)).astype(np.float32)


def write_labelled(path, vectors, labels=LABELS, **more):
    ids = np.array([f"p{number}" for number in range(len(vectors))])
    np.savez(path, **{"ids": ids, "descriptors": vectors, "labels": labels, **more})
    return path


def labelled(path, limit=1_000_000, seed=0, interrupt=None, progress=no_progress):
    return scores_of_labelled(path, limit, seed, interrupt=interrupt or Interrupt(), progress=progress)


def naive_scores(vectors, labels):
    """All pairs by the oracle's similarity."""
    codes = quantise(vectors)
    similarity = naive_similarity(codes, codes)
    found = {True: [], False: []}
    for a, b in itertools.combinations(range(len(codes)), 2):
        found[bool(labels[a] == labels[b])].append(similarity[a, b])
    return few_scores(found[True], found[False])


@pytest.mark.parametrize("labels", [LABELS, np.unique(LABELS, return_inverse=True)[1]])
def test_labelled_objects_give_every_pair_by_matchings_own_similarity(tmp_path, labels):
    found = labelled(write_labelled(tmp_path / "p.npz", people(), labels))
    expected = naive_scores(people(), LABELS)
    assert np.array_equal(found.scores.genuine, expected.genuine)
    assert np.array_equal(found.scores.impostor, expected.impostor)
    assert found.impostor_pairs_in_all == 22
    assert expected.genuine.sum() == 6


def test_sampled_impostors_are_drawn_evenly_from_all_impostor_pairs(tmp_path):
    path = write_labelled(tmp_path / "p.npz", people(), LABELS)
    sampled, whole = labelled(path, limit=21), labelled(path)
    assert sampled.scores.impostor.sum() == 21
    assert sampled.impostor_pairs_in_all == 22
    assert np.array_equal(sampled.scores.genuine, whole.scores.genuine)
    counts = sum(labelled(path, limit=21, seed=seed).scores.impostor for seed in range(2000))
    assert set(np.flatnonzero(counts)) == set(np.flatnonzero(whole.scores.impostor))
    # 2000 * 21 draws over 22 pairs, each in a bin of its own: six standard deviations of a fair choice.
    drawn = counts[np.flatnonzero(counts)]
    assert len(drawn) == 22
    assert np.abs(drawn - 2000 * 21 / 22).max() < 6 * np.sqrt(2000 * 21 / 22)


def test_the_same_seed_draws_the_same_pairs(tmp_path):
    path = write_labelled(tmp_path / "p.npz", people(), LABELS)
    first, again, other = (labelled(path, 15, seed).scores.impostor for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"labels": LABELS[:5]},
            r"labels: found <U1 of shape \(5,\), expected integers or strings of shape \(8,\)",
        ),
        ({"labels": np.linspace(0, 1, 8)}, "labels: found float64"),
        ({"labels": np.array([object()] * 8)}, "labels: not readable"),
        ({"vectors": np.zeros((8, 12), np.float32)}, "descriptor of p0: found zeros, NaN or infinity"),
        ({"vectors": np.full((8, 12), np.nan, np.float32)}, "descriptor of p0"),
    ],
)
def test_a_labelled_file_that_is_not_right_is_an_error(tmp_path, change, expected):
    path = write_labelled(tmp_path / "p.npz", **({"vectors": people()} | change))
    with pytest.raises(InputError, match=expected):
        labelled(path)


def test_a_file_without_labels_is_an_error_that_names_what_is_missing(tmp_path):
    np.savez(tmp_path / "p.npz", ids=np.array(["a"]), descriptors=np.ones((1, 3), np.float32))
    with pytest.raises(
        InputError, match="found descriptors, ids, expected the arrays ids, descriptors and labels"
    ):
        labelled(tmp_path / "p.npz")


@pytest.mark.parametrize("stage", ["read", "genuine", "impostor"])
def test_a_cancel_is_heeded_at_every_stage(tmp_path, stage):
    interrupt = Interrupt()

    def progress(name, share):
        if name == stage:
            interrupt.cancel()

    path = write_labelled(tmp_path / "p.npz", people(), LABELS)
    with pytest.raises(Cancelled):
        labelled(path, interrupt=interrupt, progress=progress)


def pairs_of(path, descriptors=None):
    [source] = find_sources([str(path)])
    return scores_of_pairs(source, descriptors, interrupt=Interrupt(), progress=no_progress)


def test_pairs_with_cosines_are_counted_whatever_the_order_of_the_columns(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('note,same,cosine\n"x, y",1,0.75\n\n,0,-0.25\nz, 0 , 0.5 \n')
    expected = few_scores([0.75], [-0.25, 0.5])
    assert np.array_equal(pairs_of(path).genuine, expected.genuine)
    assert np.array_equal(pairs_of(path).impostor, expected.impostor)


def test_pairs_of_ids_get_the_cosines_of_their_descriptors(tmp_path):
    vectors = people()
    objects = read_descriptors(write_labelled(tmp_path / "p.npz", vectors, LABELS), Interrupt(), no_progress)
    lines = [
        f"p{a},p{b},{int(LABELS[a] == LABELS[b])}" for a, b in itertools.combinations(range(len(LABELS)), 2)
    ]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["a,b,same", *lines]))
    found, expected = pairs_of(path, objects), naive_scores(vectors, LABELS)
    assert np.array_equal(found.genuine, expected.genuine)
    assert np.array_equal(found.impostor, expected.impostor)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found the columns nothing, expected cosine, same"),
        ("similarity,same\n", "found the columns similarity, same, expected cosine, same"),
        ("a,b,same\n", "expected cosine, same; pairs of ids .* need --descriptors"),
        ("cosine,same\n0.5,1\n0.5,yes\n", "pairs.csv:3: same: found 'yes', expected 0 or 1"),
        ("cosine,same\n1.5,1\n", "pairs.csv:2: cosine: found '1.5', expected a number from -1 to 1"),
        ("cosine,same\nnan,1\n", "pairs.csv:2: cosine: found 'nan'"),
        ("cosine,same\nx,1\n", "pairs.csv:2: cosine: found 'x'"),
        ("cosine,same\n0.5\n", "pairs.csv:2: found 1 fields, expected 2"),
        ("cosine,same\n\xff,1\n", "pairs.csv:2: not CSV in UTF-8"),
    ],
)
def test_a_line_of_pairs_that_is_not_right_is_named(tmp_path, text, expected):
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=expected):
        pairs_of(path)


def test_ids_that_are_unknown_or_not_unique_are_errors(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("a,b,same\np0,p99,1\n")
    objects = read_descriptors(write_labelled(tmp_path / "p.npz", people(), LABELS), Interrupt(), no_progress)
    with pytest.raises(InputError, match=r"pairs.csv:2: found 'p99', expected an id of .*p.npz"):
        pairs_of(path, objects)
    twice = write_labelled(tmp_path / "q.npz", people(), LABELS, ids=np.array(["same"] * 8))
    with pytest.raises(InputError, match="found an id twice"):
        pairs_of(path, read_descriptors(twice, Interrupt(), no_progress))
