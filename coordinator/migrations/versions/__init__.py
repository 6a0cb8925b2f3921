"""Migrations of the journal's database."""
