"""New-style configs, which name classes by imports; they can be bases of other configs.

All other configs are in the folder ``configs``: ``_base_ = 'remax_mm::remax/...'``.
"""
