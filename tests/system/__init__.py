"""Tests of real servers."""
