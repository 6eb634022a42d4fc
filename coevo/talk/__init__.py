"""Talking to a model: one dialogue with a character, kept as a chat that SillyTavern reads."""
