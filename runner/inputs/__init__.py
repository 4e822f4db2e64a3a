"""Texts and pictures as the models take them."""
