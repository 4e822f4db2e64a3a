"""Exponentially weighted integrals of Lagrange polynomials: the coefficients of DEIS and SA-Solver."""

import math

import numpy as np


def moments(count, rate, end):
    """The integrals of v^k exp(rate v) over v from 0 to `end`, for k below `count`: by parts, one from another."""
    growth = math.exp(rate * end)
    values = [math.expm1(rate * end) / rate]
    for k in range(1, count):
        values.append((end**k * growth - k * values[-1]) / rate)
    return values


def lagrange_weights(nodes, moments):
    """For each node, the integral of its Lagrange polynomial, given the integrals of the powers."""
    weights = []
    for i, node in enumerate(nodes):
        others = [other for j, other in enumerate(nodes) if j != i]
        powers = np.atleast_1d(np.poly(others))[::-1] / math.prod(node - other for other in others)
        weights.append(float(np.dot(powers, moments)))
    return weights
