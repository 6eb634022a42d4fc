"""Character cards and their lorebooks."""

from coevo.cards.card import Card, parse_card
from coevo.cards.files import read_card, read_cards, write_card
from coevo.cards.lorebook import Entry, Lorebook, parse_lorebook

__all__ = ["Card", "Entry", "Lorebook", "parse_card", "parse_lorebook", "read_card", "read_cards", "write_card"]
