"""Deployment of trained models."""
