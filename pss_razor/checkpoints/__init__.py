"""Checkpoints: found, checked and read without executing anything in them."""

from pss_razor.checkpoints.checkpoint import check_state_dict, find_latest_checkpoint, read_checkpoint

__all__ = ["check_state_dict", "find_latest_checkpoint", "read_checkpoint"]
