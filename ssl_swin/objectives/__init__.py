"""Objectives: what pretraining minimises."""
