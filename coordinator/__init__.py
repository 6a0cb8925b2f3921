"""Orchestration: decides what runs where and remembers everything that happened."""
